// Package either is the policy that lets requests pass that any of several policies lets pass, such as one with a token or one with a key, or
// all of several: a token and an address, or a key.
package either

import "github.com/sluice-gateway/sluice/core"

// Concealer is a policy that can take its credential out of a request that it has not judged.
type Concealer interface{ Conceal(x *core.Exchange) }

// Beginner is a policy that can have whoever is a browser log in, where no policy has let him pass; false: he is none, and nothing has been
// answered.
type Beginner interface{ Begin(x *core.Exchange) bool }

// MaxBranches bounds the branches of a policy.
const MaxBranches = 4

// Policy is immutable; loops share it.
type Policy struct {
	branches []Branch
	writes   []string // headers in which any of them tells an upstream who it is
}

// New gives the policy of these, MaxBranches at most, which are asked in their order until one lets the request pass. Writes are the headers in
// which their members tell who it is: a client's own are dropped, also those of a member that is not asked any more.
func New(branches []Branch, writes []string) *Policy { return &Policy{branches, writes} }

// OnRequest lets a request pass if any of the branches does. What another branch has found out, before one of its members refused, counts for
// nothing, and its credentials do not reach the upstream, whether they are right or not. If none lets it pass, the answer is that of the first
// that has found a credential, or could not judge one; if nobody has found any, that of the first that asks for one, with what all of them ask
// for; and only if all have refused before that, for an address, a method or the like, the first's. Where all that is wrong is that nobody
// knows who it is, a browser is sent to log in instead.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	for _, name := range p.writes {
		x.Request.RemoveLike(name)
	}
	var refusals [MaxBranches]refusal
	var asks [MaxBranches]string
	worst := 0
	for i, b := range p.branches {
		r, passes := b.ask(x)
		if passes {
			for j, other := range p.branches {
				if j != i {
					other.conceal(x)
				}
			}
			return core.Continue
		}
		if r.err == nil {
			return core.Respond
		}
		if refusals[i] = r; r.rank > refusals[worst].rank {
			worst = i
		}
		if ask, ok := x.Response.Lookup("WWW-Authenticate"); ok {
			asks[i] = string(ask)
		}
		x.Err = nil
		x.Response.Reset()
	}
	return p.refuse(x, &refusals[worst], refusals[:len(p.branches)], asks[:])
}

// refuse answers with the worst of all refusals. The log learns who was refused, if he is known.
func (p *Policy) refuse(x *core.Exchange, worst *refusal, all []refusal, asks []string) core.Verdict {
	if worst.err.Status == 401 {
		for i, b := range p.branches {
			if b.begins(x, all[i].at) {
				return core.Respond
			}
		}
	}
	x.Consumer = worst.who
	x.Fail(worst.err)
	if worst.err.Status == 401 {
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
