package compile

import (
	"fmt"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/access"
	"github.com/sluice-gateway/sluice/core/policy/either"
	"github.com/sluice-gateway/sluice/core/policy/keyauth"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

func keyAuth(_ *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
	k := p.KeyAuth
	return core.Step{Request: keyauth.New(keyauth.Spec{Carrier: carrierOf(k.Carrier, ""), Prefixes: k.Prefixes, Hide: k.Hide, Optional: k.Optional}, c.consumers.directory)}, nil
}

func accessOf(r *Registry, _ *Compiled, p *config.Policy, _ string) (core.Step, error) {
	a := p.Access
	people := func(p *config.People) access.People {
		return access.People{Groups: p.Groups, Roles: p.Roles, Consumers: p.Consumers, Tiers: p.Tiers}
	}
	claims := func(from []config.RequiredClaim) (to []core.RequiredClaim) {
		for _, c := range from {
			to = append(to, core.RequiredClaim(c))
		}
		return to
	}
	spec := access.Spec{Allow: people(&a.Allow), Scopes: a.Scopes, Claims: claims(a.Claims), Methods: a.Methods,
		Deny: access.Denied{People: people(&a.Deny.People), Scopes: a.Deny.Scopes, Claims: claims(a.Deny.Claims), Methods: a.Deny.Methods}}
	if a.When != "" {
		var err error
		if spec.When, err = core.NewCondition(a.When); err != nil {
			return core.Step{}, fmt.Errorf("cannot compile the condition: %w", err)
		}
	}
	return core.Step{Request: access.New(spec, len(r.workers))}, nil
}

// eitherOf makes the policy of kind any. Its policies keep what they keep under its name and their places, behind another sign than those that
// are written in a route, which may have the same name.
func eitherOf(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	var whole core.Step
	var branches []either.Branch
	for i := range p.Any {
		one, place := &p.Any[i], fmt.Sprintf("%s/%d", name, i+1)
		var b either.Branch
		if len(one.All) == 0 {
			if err := r.member(c, one, place, &b, &whole); err != nil {
				return whole, err
			}
		}
		for j := range one.All {
			if err := r.member(c, &one.All[j], fmt.Sprintf("%s/%d", place, j+1), &b, &whole); err != nil {
				return whole, err
			}
		}
		branches = append(branches, b)
	}
	if len(branches) > either.MaxBranches {
		return whole, fmt.Errorf("%s: policy %q has more than %d policies", p.Pos, "any", either.MaxBranches)
	}
	whole.Request = either.New(branches, whole.Writes)
	return whole, nil
}

// member adds a policy to a branch, and to the whole what it writes.
func (r *Registry) member(c *Compiled, p *config.Policy, name string, to *either.Branch, whole *core.Step) error {
	s, err := r.policy(c, p, name)
	if err != nil {
		return err
	}
	if s.Request == nil || s.Response != nil || s.End != nil {
		return fmt.Errorf("%s: policy %q cannot be one of several", p.Pos, s.Name)
	}
	if logins, ok := s.Request.(*oidc.Policy); ok {
		s.Request = oidc.Member{Policy: logins}
	}
	*to = append(*to, either.Member{Policy: s.Request, Proves: p.Authenticates()})
	whole.Writes = append(whole.Writes, s.Writes...)
	return nil
}

// carrierOf is where a credential is. scheme is the one that it has in Authorization, unless the configuration names another, for all headers.
func carrierOf(c config.Carrier, scheme string) core.Carrier {
	if c.Schemed {
		scheme = c.Scheme
	}
	return core.Carrier{Headers: c.Headers, Scheme: scheme, Schemed: c.Schemed, Cookies: c.Cookies, Arguments: c.Arguments}
}
