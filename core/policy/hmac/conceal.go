package hmac

import (
	"github.com/dunglas/httpsfv"
	"github.com/sluice-gateway/sluice/core"
)

// fieldNames are those of the two dictionaries that carry signatures (RFC 9421, 4).
var fieldNames = [...]string{"Signature-Input", "Signature"}

// Conceal takes the signatures that this policy judges out of the request that is forwarded, if that is wanted: those by keys of consumers, and
// of several tags those with the policy's. Whatever else is signed, such as for somebody behind the upstream, stays, and so does Content-Digest,
// which is no credential. Dictionaries that cannot be taken apart go as a whole: somebody else may read in them what is not read here.
func (p *Policy) Conceal(x *core.Exchange) {
	if !p.spec.Hide {
		return
	}
	inputs, values := lines(&x.Request, fieldNames[0]), lines(&x.Request, fieldNames[1])
	var stay [len(fieldNames)]string
	if len(inputs) > 0 && len(values) > 0 {
		d := p.consumers.Directory()
		x.Worker.Loop.Await(func() { stay = p.others(inputs, values, d) })
	}
	for i, name := range fieldNames {
		x.Request.RemoveLike(name)
		if stay[i] != "" {
			x.Request.AddName(name, []byte(stay[i]))
		}
	}
}

// others are the two dictionaries without the signatures that this policy judges; empty: nothing stays.
func (p *Policy) others(inputs, values []string, d *core.Directory) (stay [len(fieldNames)]string) {
	all, ok := read(inputs, values)
	if !ok {
		return stay
	}
	in, out := httpsfv.NewDictionary(), httpsfv.NewDictionary()
	for i := range all {
		if s := &all[i]; d.Signer(s.keyID) == nil || p.spec.Tag != "" && s.tag != p.spec.Tag {
			in.Add(s.label, s.input)
			out.Add(s.label, s.item)
		}
	}
	if len(in.Names()) == 0 {
		return stay
	}
	for i, part := range [...]*httpsfv.Dictionary{in, out} {
		text, err := httpsfv.Marshal(part)
		if err != nil {
			return [len(fieldNames)]string{}
		}
		stay[i] = text
	}
	return stay
}
