package compile

import (
	"fmt"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/route"
	"github.com/sluice-gateway/sluice/core/upstream"
)

func (r *Registry) route(c *Compiled, spec *config.Route) (*core.Route, error) {
	out := &core.Route{Name: spec.Name, Metric: r.metrics.Route(spec.Name), BodyLimit: -1, LogSample: -1}
	if spec.BodyBytes != nil {
		out.BodyLimit = *spec.BodyBytes
	}
	if spec.LogSample != nil {
		out.LogSample = *spec.LogSample
	}
	if len(spec.To) == 1 {
		out.Upstream = spec.To[0].Upstream
	}
	for i := range spec.Matches {
		for _, m := range spec.Matches[i].Methods {
			out.Connect = out.Connect || m == "CONNECT"
		}
	}
	if w := spec.ClientCert; w != nil {
		out.ClientCert = &core.ClientCert{Subjects: setOf(w.Subjects), Names: setOf(w.Names), Fingerprints: setOf(w.Fingerprints)}
	}
	var err error
	if out.Chain, err = r.use(c, spec); err != nil {
		return nil, err
	}
	changes, err := edits(spec)
	if err != nil {
		return nil, err
	}
	if out.Chain = append(out.Chain, changes...); len(out.Chain) > core.MaxChain {
		return nil, fmt.Errorf("more than %d policies and changes", core.MaxChain)
	}
	out.Action, err = r.action(c, spec)
	return out, err
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, s := range list {
		set[s] = true
	}
	return set
}

func (r *Registry) action(c *Compiled, spec *config.Route) (core.Action, error) {
	switch {
	case spec.Respond != nil && spec.Respond.Keys:
		return c.publish()
	case spec.Respond != nil:
		return respond(spec.Respond)
	case spec.Redirect != nil:
		return route.NewRedirect(spec.Redirect.To, spec.Redirect.Status, commonParams(spec.Matches))
	}
	var targets []upstream.Target
	for i := range spec.To {
		t := &spec.To[i]
		d := c.found[t.Upstream]
		if d == nil {
			return nil, fmt.Errorf("there is no upstream %q", t.Upstream)
		}
		targets = append(targets, upstream.Target{Upstream: d.upstream, Weight: t.Weight, Subset: c.subset(d, t), Name: t.Name()})
	}
	split := r.split(c, spec, targets)
	if spec.Passthrough {
		return upstream.NewPassthrough(targets, len(r.workers)).Shape(split), nil
	}
	canary, err := r.canary(c, spec)
	if err != nil {
		return nil, err
	}
	mirror, err := r.mirror(c, spec)
	if err != nil {
		return nil, err
	}
	gate, err := r.gate(c, breakerKey{true, spec.Name}, spec.Breaker)
	if err != nil {
		return nil, err
	}
	p := upstream.NewProxy(targets, spec.Timeout, spec.Host == "upstream", len(r.workers))
	return c.proxy(p.Limit(routeLimits(spec)).Shape(split, canary, mirror).Guard(gate)), nil
}

// proxy is the one that the routes of c share whose proxies are equal to p. Most routes say nothing but where to.
func (c *Compiled) proxy(p *upstream.Proxy) *upstream.Proxy {
	if same := c.proxies[*p]; same != nil {
		return same
	}
	c.proxies[*p] = p
	return p
}

func respond(spec *config.Respond) (core.Action, error) {
	s := route.RespondSpec{Status: spec.Status, ContentType: "text/plain; charset=utf-8", Body: spec.Body.Reveal()}
	if s.Body == "" {
		s.ContentType = ""
	}
	for _, h := range spec.Headers {
		s.Headers = append(s.Headers, route.HeaderLine{Name: h.Name, Value: h.Value.Reveal()})
	}
	return route.NewRespond(s)
}

// subset is that of a target: the one in force, if there is one of these labels; nil: all endpoints are meant.
func (c *Compiled) subset(d *discovered, t *config.Target) *upstream.Subset {
	if t.Subset == nil {
		return nil
	}
	all, key := c.subsets[t.Upstream], t.Key()
	if all == nil {
		all = map[string]*upstream.Subset{}
		c.subsets[t.Upstream] = all
	}
	if all[key] == nil {
		d.mu.Lock()
		all[key] = d.subsets[key]
		d.mu.Unlock()
	}
	if all[key] == nil {
		all[key] = d.upstream.Subset(t.Subset, t.OrAny)
	}
	return all[key]
}

// edits are the changes to the request, as the last policies before the action.
func edits(spec *config.Route) (chain core.Chain, err error) {
	add := func(name string, p core.RequestPolicy, failure error) {
		if err == nil {
			err = failure
		}
		chain = append(chain, core.Step{Name: name, Request: p})
	}
	if spec.StripPrefix != "" {
		p, failure := route.NewStripPrefix(spec.StripPrefix)
		add("strip_prefix", p, failure)
	}
	if spec.ReplacePrefix != nil {
		p, failure := route.NewReplacePrefix(spec.ReplacePrefix.Prefix, spec.ReplacePrefix.With)
		add("replace_prefix", p, failure)
	}
	if spec.Rewrite != nil {
		p, failure := route.NewRewrite(spec.Rewrite.Pattern, spec.Rewrite.To)
		add("rewrite", p, failure)
	}
	if spec.Host != "preserve" && spec.Host != "upstream" && spec.Host != "" {
		p, failure := route.NewSetHost(spec.Host)
		add("host", p, failure)
	}
	return chain, err
}

// rule is one match of a route.
func rule(spec *config.Route, m *config.Match, target *core.Route) route.Rule {
	out := route.Rule{
		Target:   target,
		Priority: spec.Priority,
		Host:     route.Host{Name: m.Host.Name, Wildcard: m.Host.Wildcard},
		Path:     route.Path{Kind: route.PathKind(m.Path.Kind), Value: m.Path.Value},
		Methods:  m.Methods,
	}
	if f := m.Further; f != nil {
		out.Headers, out.Query, out.Cookies = fields(f.Headers), fields(f.Query), fields(f.Cookies)
		out.Listeners, out.ContentTypes, out.Clients = f.Listeners, f.ContentTypes, f.Clients
	}
	return out
}

func fields(in []config.FieldMatch) (out []route.Field) {
	for _, f := range in {
		out = append(out, route.Field{Name: f.Name, Op: route.FieldOp(f.Op), Value: f.Value, Regex: f.Regex})
	}
	return out
}

// commonParams are the names that every match's path has.
func commonParams(matches []config.Match) (names []string) {
	counts := map[string]int{}
	for i := range matches {
		p := &matches[i].Path
		for _, name := range route.ParamNames(route.Path{Kind: route.PathKind(p.Kind), Value: p.Value}) {
			counts[name]++
			if counts[name] == len(matches) {
				names = append(names, name)
			}
		}
	}
	return names
}
