package core

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/sluice-gateway/sluice/limits"
)

// KeyKind is what of a request a key is made of.
type KeyKind uint8

// The kinds. The last five have a name.
const (
	KeyGlobal KeyKind = iota // nothing: there is one key
	KeyIP                    // the client's address, as far as it can be trusted
	KeyRoute
	KeyMethod
	KeyHost     // without its port
	KeyUpstream // of a route that has one
	KeyConsumer // by name
	KeyTenant   // of the consumer
	KeyHeader
	KeyCookie
	KeyQuery
	KeyPath  // a parameter of the route's path
	KeyClaim // of a token that a policy has verified
)

var keyKindNames = [...]string{"global", "ip", "route", "method", "host", "upstream", "consumer", "tenant", "header", "cookie", "query", "path", "claim"}

// ParseKeyKind gives the kind that a configuration names.
func ParseKeyKind(name string) (KeyKind, bool) {
	for k, known := range keyKindNames {
		if known == name {
			return KeyKind(k), true
		}
	}
	return 0, false
}

// KeyPart is one of the things that a key is made of.
type KeyPart struct {
	Kind KeyKind
	Name string // of a header in any case
}

// String is the part as a configuration has it.
func (p KeyPart) String() string {
	if p.Name == "" {
		return keyKindNames[p.Kind]
	}
	return keyKindNames[p.Kind] + ":" + p.Name
}

// KeyRecipe makes the limits.Key of a request, of one thing or of several together. Immutable. Key and AppendText run on the loop of
// the exchange, and allocate nothing in steady state; the rest may be called from anywhere.
type KeyRecipe struct {
	seed  limits.Seed
	start limits.Key // of the parts' names: who takes keys of another kind has others
	parts []keyPart
	bits  int // of an IPv6 address that make one client
}

type keyPart struct {
	KeyPart
	id FieldID // of a header
}

// NewKeyRecipe makes one. Of an IPv6 address so many bits count: what is behind them is the client's own to choose (RFC 6177).
func NewKeyRecipe(seed limits.Seed, parts []KeyPart, ipv6Bits int) *KeyRecipe {
	r := &KeyRecipe{seed: seed, start: seed.Key([]byte("key")), bits: ipv6Bits}
	for _, p := range parts {
		r.start = seed.With(r.start, []byte(p.String()))
		r.parts = append(r.parts, keyPart{p, LookupField([]byte(p.Name))})
	}
	return r
}

// String names the recipe's parts.
func (r *KeyRecipe) String() string {
	names := make([]string, len(r.parts))
	for i, p := range r.parts {
		names[i] = p.String()
	}
	return strings.Join(names, ",")
}

// One says that there is one key for all requests.
func (r *KeyRecipe) One() bool { return len(r.parts) == 1 && r.parts[0].Kind == KeyGlobal }

// Key is the key of x. missing says that x lacks a part of it, and shares its key with all others that lack the same.
//
// A header, cookie or argument that stands there twice is missing: who comes behind us may take the other one, and a client would
// have as many keys as it likes beside the one that counts there.
func (r *KeyRecipe) Key(x *Exchange) (k limits.Key, missing bool) {
	k = r.start
	for i := range r.parts {
		v, ok := r.parts[i].value(x, r.bits)
		if !ok {
			missing = true
			k.Hi ^= 1 // where no value leads: keys of values are those of a keyed hash
			k = r.seed.With(k, nil)
		} else if r.parts[i].Kind != KeyGlobal {
			k = r.seed.With(k, v)
		}
	}
	return k, missing
}

// Named is the key of a request with these values, one for each part; false: there are not as many.
func (r *KeyRecipe) Named(values []string) (limits.Key, bool) {
	k := r.start
	for _, p := range r.parts {
		if p.Kind == KeyGlobal {
			continue
		}
		if len(values) == 0 {
			return k, false
		}
		v := []byte(values[0])
		values = values[1:]
		switch p.Kind {
		case KeyIP:
			a, err := netip.ParseAddr(string(v))
			if err != nil {
				return k, false
			}
			v = appendClient(nil, a, r.bits)
		case KeyHost:
			v = appendHost(nil, v)
		}
		k = r.seed.With(k, v)
	}
	return k, len(values) == 0
}

// shownBytes is how much of a value is shown that may be a credential.
const shownBytes = 4

// AppendText appends the key of x as people know it. Of what may be a credential, such as a header, the beginning is shown, and
// a part of the key, which tells one from another.
func (r *KeyRecipe) AppendText(dst []byte, x *Exchange) []byte {
	for i := range r.parts {
		if i > 0 {
			dst = append(dst, ' ')
		}
		p := &r.parts[i]
		dst = append(dst, keyKindNames[p.Kind]...)
		if p.Kind == KeyGlobal {
			continue
		}
		v, ok := p.value(x, r.bits)
		switch dst = append(dst, '='); {
		case !ok:
			dst = append(dst, '-')
		case p.Kind == KeyIP:
			dst = x.Client.Addr.Unmap().AppendTo(dst)
		case p.Kind == KeyHeader || p.Kind == KeyCookie || p.Kind == KeyQuery:
			hash := r.seed.With(r.start, v).Lo
			dst = append(dst, v[:min(len(v), shownBytes)]...)
			if len(v) > shownBytes {
				dst = append(dst, "..."...)
				for shift := 28; shift >= 0; shift -= 4 {
					dst = append(dst, "0123456789abcdef"[hash>>shift&15])
				}
			}
		default:
			dst = append(dst, v[:min(len(v), limits.LabelBytes)]...)
		}
	}
	return dst
}

// value is what x has for the part. It is valid until the next one is asked for on this loop.
func (p *keyPart) value(x *Exchange, ipv6Bits int) (v []byte, ok bool) {
	m := &x.Request
	switch p.Kind {
	case KeyGlobal:
		return nil, true
	case KeyIP:
		if !x.Client.Addr.IsValid() {
			return nil, false
		}
		return x.Worker.scratch(appendClient(x.Worker.memory[:0], x.Client.Addr, ipv6Bits)), true
	case KeyRoute:
		return x.Worker.scratch(append(x.Worker.memory[:0], x.Route.Name...)), true
	case KeyMethod:
		return m.MethodBytes(), true
	case KeyHost:
		host := HostOf(m.Host())
		return x.Worker.scratch(appendHost(x.Worker.memory[:0], host)), len(host) > 0
	case KeyHeader:
		return p.header(m)
	case KeyCookie:
		v, n := m.cookie(p.Name)
		return v, n == 1
	case KeyQuery:
		return p.argument(x)
	case KeyClaim:
		s, ok := x.Claims.Value(p.Name)
		return x.Worker.scratch(append(x.Worker.memory[:0], s...)), ok
	case KeyUpstream:
		return x.Worker.scratch(append(x.Worker.memory[:0], x.Route.Upstream...)), x.Route.Upstream != ""
	case KeyConsumer:
		if x.Consumer == nil {
			return nil, false
		}
		return x.Worker.scratch(append(x.Worker.memory[:0], x.Consumer.Name...)), true
	case KeyTenant:
		if x.Consumer == nil || x.Consumer.Tenant == "" {
			return nil, false
		}
		return x.Worker.scratch(append(x.Worker.memory[:0], x.Consumer.Tenant...)), true
	}
	v = x.Param(p.Name)
	return v, v != nil
}

// appendClient appends what of an address makes a client.
func appendClient(dst []byte, a netip.Addr, ipv6Bits int) []byte {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return append(dst, b[:]...)
	}
	b := a.As16()
	for i := range b {
		if keep := ipv6Bits - 8*i; keep < 8 {
			b[i] &= byte(0xff << (8 - max(keep, 0)))
		}
	}
	return append(dst, b[:]...)
}

func (p *keyPart) header(m *Message) (v []byte, ok bool) {
	for i := range m.fields {
		f := &m.fields[i]
		if f.removed || f.ID != p.id || p.id == FieldOther && !EqualFold(m.name(f), p.Name) {
			continue
		}
		if ok {
			return nil, false
		}
		v, ok = m.value(f), true
	}
	return v, ok
}

// argument looks through the query, of which names and values are decoded as forms are: there are many ways to write one value, and
// all are one key.
func (p *keyPart) argument(x *Exchange) (v []byte, ok bool) {
	for query := x.Request.Query; len(query) > 0; {
		var arg []byte
		arg, query, _ = bytes.Cut(query, []byte{'&'})
		name, value, _ := bytes.Cut(arg, []byte{'='})
		if string(x.Worker.scratch(AppendForm(x.Worker.memory[:0], name))) != p.Name {
			continue
		}
		if ok {
			return nil, false
		}
		v, ok = value, true
	}
	if !ok {
		return nil, false
	}
	return x.Worker.scratch(AppendForm(x.Worker.memory[:0], v)), true
}

// scratch keeps the memory that a key's value was written to for the next one, within a bound.
func (w *Worker) scratch(b []byte) []byte {
	if cap(b) <= maxKept {
		w.memory = b[:0]
	}
	return b
}
