package either

import (
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Branch is policies of which all must let a request pass, in the order in which they are asked.
type Branch []Member

// Member is one of them.
type Member struct {
	Policy core.RequestPolicy
	Proves bool // it finds out who a consumer is; else it only judges, and bears no credential
}

// refusal is why a branch did not let a request pass.
type refusal struct {
	err  *core.Error // nil: nobody was refused, the request has been answered
	at   int         // the member
	rank rank
	who  *core.Consumer // whom members before it have found
}

// rank orders refusals: the higher tells a client more of what he could do.
type rank uint8

const (
	judged   rank = iota // before any credential was looked for
	missing              // there is no credential
	answered             // a credential has been found, or could not be judged
)

// ask asks all members until one refuses. What those before it have found out and changed is undone then.
func (b Branch) ask(x *core.Exchange) (r refusal, passes bool) {
	var before core.Mark
	if len(b) > 1 {
		before = x.Mark()
	}
	rank := judged
	for i := range b {
		if b[i].Policy.OnRequest(x) == core.Continue {
			if b[i].Proves {
				rank = answered
			}
			continue
		}
		if x.Err == nil || x.Err.Status == 0 {
			return refusal{}, false // the client has gone, or the answer is no refusal
		}
		r = refusal{err: x.Err, at: i, rank: rank, who: x.Consumer}
		switch {
		case !b[i].Proves || rank == answered:
		case lacks(x.Err):
			r.rank = missing
		default:
			r.rank = answered
		}
		if len(b) > 1 {
			x.Undo(before)
		}
		return r, false
	}
	return r, true
}

// conceal takes the credentials of a branch out of a request that another has let pass.
func (b Branch) conceal(x *core.Exchange) {
	for i := range b {
		if c, ok := b[i].Policy.(Concealer); ok {
			c.Conceal(x)
		}
	}
}

// begins has a browser log in if that is what the branch lacks, or would be asked for next.
func (b Branch) begins(x *core.Exchange, at int) bool {
	l, ok := b[at].Policy.(Beginner)
	return ok && l.Begin(x)
}

// lacks says whether a request was refused only because it had no credential.
func lacks(err *core.Error) bool {
	return strings.HasSuffix(err.Reason, "_missing") || err.Reason == "login_required" || err == core.ErrClientCert
}
