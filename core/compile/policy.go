package compile

import (
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/basic"
	"github.com/sluice-gateway/sluice/core/policy/cors"
	"github.com/sluice-gateway/sluice/core/policy/grpcweb"
	"github.com/sluice-gateway/sluice/core/policy/headers"
	"github.com/sluice-gateway/sluice/core/policy/mtls"
)

// kind is one kind of policy: how a step is made of what is written. A step that routes share is made once.
type kind struct {
	name string
	is   func(p *config.Policy) bool
	make func(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) // less its Name
}

// kinds is the table of policies.
func kinds() []kind {
	return []kind{
		{"grpc_web", func(p *config.Policy) bool { return p.GRPCWeb != nil }, func(r *Registry, _ *Compiled, _ *config.Policy, _ string) (core.Step, error) {
			t := grpcweb.New(len(r.workers))
			return core.Step{Request: t, Response: t, End: t}, nil
		}},
		{"headers", func(p *config.Policy) bool { return p.Headers != nil }, func(_ *Registry, _ *Compiled, p *config.Policy, _ string) (core.Step, error) {
			t, err := headers.New(headerChanges(&p.Headers.Request), headerChanges(&p.Headers.Response))
			return core.Step{Writes: overwritten(&p.Headers.Request), Request: t, Response: t}, err
		}},
		{"cors", func(p *config.Policy) bool { return p.CORS != nil }, func(_ *Registry, _ *Compiled, p *config.Policy, _ string) (core.Step, error) {
			c := p.CORS
			t := cors.New(cors.Spec{Origins: c.Origins, Methods: c.Methods, Headers: c.Headers, Expose: c.Expose, Credentials: c.Credentials, MaxAge: c.MaxAge})
			return core.Step{Request: t, Response: t}, nil
		}},
		{"rate_limit", func(p *config.Policy) bool { return p.RateLimit != nil }, func(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
			return r.rateLimit(c, name, p.RateLimit)
		}},
		{"concurrency", func(p *config.Policy) bool { return p.Concurrency != nil }, func(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
			return r.concurrency(c, name, p.Concurrency)
		}},
		{"keyauth", func(p *config.Policy) bool { return p.KeyAuth != nil }, keyAuth},
		{"mtls", func(p *config.Policy) bool { return p.MTLS != nil }, func(_ *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
			return core.Step{Request: mtls.New(c.consumers.directory, p.MTLS.Optional)}, nil
		}},
		{"jwt", func(p *config.Policy) bool { return p.JWT != nil }, tokens},
		{"basic", func(p *config.Policy) bool { return p.Basic != nil }, func(r *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
			return core.Step{Request: basic.New(basic.Spec(*p.Basic), c.consumers.directory, r.passwords, len(r.workers))}, nil
		}},
		{"introspect", func(p *config.Policy) bool { return p.Introspect != nil }, introspection},
		{"oidc", func(p *config.Policy) bool { return p.OIDC != nil }, logins},
		{"hmac", func(p *config.Policy) bool { return p.HMAC != nil }, signatures},
		{"any", func(p *config.Policy) bool { return len(p.Any) > 0 }, eitherOf},
		{"forward", func(p *config.Policy) bool { return p.Forward != nil }, forwardAuth},
		{"ext_authz", func(p *config.Policy) bool { return p.ExtAuthz != nil }, extAuthz},
		{"fault", func(p *config.Policy) bool { return p.Fault != nil }, faults},
		{"ip", func(p *config.Policy) bool { return p.IP != nil }, addresses},
		{"access", func(p *config.Policy) bool { return p.Access != nil }, accessOf},
	}
}

func headerChanges(c *config.HeaderChanges) headers.Changes {
	lines := func(from []config.Header) (to []headers.Line) {
		for _, h := range from {
			to = append(to, headers.Line{Name: h.Name, Value: h.Value.Reveal()})
		}
		return to
	}
	return headers.Changes{Remove: c.Remove, Set: lines(c.Set), Add: lines(c.Add), Default: lines(c.Default)}
}

// overwritten are the fields of which nothing that a client sends is to reach the upstream.
func overwritten(c *config.HeaderChanges) []string {
	all := slices.Clone(c.Remove)
	for _, h := range c.Set {
		all = append(all, h.Name)
	}
	return all
}

// policiesOf makes the steps of a configuration's named policies.
func (r *Registry) policiesOf(c *Compiled) error {
	c.policies = make(map[string]core.Step, len(c.Config.Policies))
	for i := range c.Config.Policies {
		p := &c.Config.Policies[i]
		s, err := r.policy(c, p, p.Name)
		if err != nil {
			return err
		}
		c.policies[p.Name] = s
	}
	return nil
}

// policy makes a step. name is what its state is kept under.
func (r *Registry) policy(c *Compiled, p *config.Policy, name string) (core.Step, error) {
	for _, k := range kinds() {
		if !k.is(p) {
			continue
		}
		s, err := k.make(r, c, p, name)
		if s.Name = p.Name; s.Name == "" {
			s.Name = k.name
		}
		if err != nil {
			err = fmt.Errorf("%s: policy %q: %w", p.Pos, s.Name, err)
		}
		return s, err
	}
	return core.Step{}, fmt.Errorf("%s: policy %q is of no kind", p.Pos, p.Name)
}

// use gives the policies of a route, which come before the changes to its requests.
func (r *Registry) use(c *Compiled, spec *config.Route) (chain core.Chain, err error) {
	for i, u := range spec.Use {
		s, ok := c.policies[u.Name]
		if u.Inline != nil {
			if s, err = r.policy(c, u.Inline, fmt.Sprintf("%s#%d", spec.Name, i+1)); err != nil {
				return nil, err
			}
		} else if !ok {
			return nil, fmt.Errorf("%s: there is no policy %q", u.Pos, u.Name)
		}
		chain = append(chain, s)
	}
	return chain, nil
}
