// Package either is the policy that lets requests pass that any of several policies lets pass, such as one with a token or one with a key.
package either

import (
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Concealer is a policy that can take its credential out of a request that it has not judged.
type Concealer interface{ Conceal(x *core.Exchange) }

// Beginner is a policy that can have whoever is a browser log in, where no policy has let him pass; false: he is none, and nothing has been
// answered.
type Beginner interface{ Begin(x *core.Exchange) bool }

// Policy is immutable; loops share it.
type Policy struct {
	of     []core.RequestPolicy
	writes []string // headers in which any of them tells an upstream who it is
}

// New gives the policy of these, which are asked in their order until one lets the request pass. Writes are the headers in which they tell
// who it is: a client's own are dropped, also those of a policy that is not asked any more.
func New(of []core.RequestPolicy, writes []string) *Policy { return &Policy{of, writes} }

// OnRequest lets a request pass if any of the policies does. The credentials that are for the others do not reach the upstream, whether
// they are right or not. If none does, the answer is that of the first that has found a credential, or could not judge one; if
// nobody has found any, the first's, with what all of them ask for. Where all that is wrong is that nobody knows who it is, a browser is sent
// to log in instead.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	for _, name := range p.writes {
		x.Request.RemoveLike(name)
	}
	var worst *core.Error
	var asks [4]string
	for i, one := range p.of {
		if one.OnRequest(x) == core.Continue {
			for j, other := range p.of {
				if c, ok := other.(Concealer); ok && j != i {
					c.Conceal(x)
				}
			}
			return core.Continue
		}
		failed := x.Err
		if failed == nil || failed.Status == 0 {
			return core.Respond // the client has gone, or the answer is no refusal
		}
		if worst == nil || missing(worst) && !missing(failed) {
			worst = failed
		}
		if ask, ok := x.Response.Lookup("WWW-Authenticate"); ok && i < len(asks) {
			asks[i] = string(ask)
		}
		x.Err = nil
		x.Response.Reset()
	}
	if worst.Status == 401 {
		for _, one := range p.of {
			if b, ok := one.(Beginner); ok && b.Begin(x) {
				return core.Respond
			}
		}
	}
	x.Fail(worst)
	if worst.Status == 401 {
		for _, ask := range asks {
			if ask != "" {
				line := x.Response.Begin("WWW-Authenticate")
				line.String(ask)
				line.End(core.FieldOther)
			}
		}
	}
	return core.Respond
}

// missing says whether a request was refused only because it had no credential.
func missing(err *core.Error) bool {
	return strings.HasSuffix(err.Reason, "_missing") || err.Reason == "login_required" || err == core.ErrClientCert
}
