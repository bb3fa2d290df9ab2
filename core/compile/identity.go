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
		return access.People{Groups: p.Groups, Consumers: p.Consumers, Tiers: p.Tiers}
	}
	spec := access.Spec{Allow: people(&a.Allow), Deny: people(&a.Deny), Scopes: a.Scopes, Methods: a.Methods}
	for _, c := range a.Claims {
		spec.Claims = append(spec.Claims, core.RequiredClaim(c))
	}
	if a.When != "" {
		var err error
		if spec.When, err = core.NewCondition(a.When); err != nil {
			return core.Step{}, fmt.Errorf("cannot compile the condition: %w", err)
		}
	}
	return core.Step{Request: access.New(spec, len(r.workers))}, nil
}

// eitherOf makes the policy of kind any. Its policies keep what they keep under its name and their places.
func eitherOf(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	var all core.Step
	var of []core.RequestPolicy
	for i := range p.Any {
		s, err := r.policy(c, &p.Any[i], fmt.Sprintf("%s#%d", name, i+1))
		if err != nil {
			return all, err
		}
		if s.Request == nil || s.Response != nil || s.End != nil {
			return all, fmt.Errorf("%s: policy %q cannot be one of several", p.Any[i].Pos, s.Name)
		}
		if logins, ok := s.Request.(*oidc.Policy); ok {
			s.Request = oidc.Member{Policy: logins}
		}
		of, all.Writes = append(of, s.Request), append(all.Writes, s.Writes...)
	}
	all.Request = either.New(of, all.Writes)
	return all, nil
}

// carrierOf is where a credential is. scheme is the one that it has in Authorization, unless the configuration names another, for all headers.
func carrierOf(c config.Carrier, scheme string) core.Carrier {
	if c.Schemed {
		scheme = c.Scheme
	}
	return core.Carrier{Headers: c.Headers, Scheme: scheme, Schemed: c.Schemed, Cookies: c.Cookies, Arguments: c.Arguments}
}
