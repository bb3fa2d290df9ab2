// Package either is the policy that lets requests pass that any of several policies lets pass, such as one with a token or one with a key.
package either

import (
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Concealer is a policy that can take its credential out of a request that it has not judged.
type Concealer interface{ Conceal(x *core.Exchange) }

// Policy is immutable; loops share it.
type Policy struct{ of []core.RequestPolicy }

// New gives the policy of these, which are asked in their order until one lets the request pass.
func New(of []core.RequestPolicy) *Policy { return &Policy{of} }

// OnRequest lets a request pass if any of the policies does. The credentials that are for the others do not reach the upstream, whether
// they are right or not. If none does, the answer is that of the first that has found a credential, or could not judge one; if
// nobody has found any, the first's, with what all of them ask for.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
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
	return strings.HasSuffix(err.Reason, "_missing") || err == core.ErrClientCert
}
