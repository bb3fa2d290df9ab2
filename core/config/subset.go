package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxSubsets bounds the different subsets of one upstream: each is balanced on its own, over again at every change.
const maxSubsets = 256

// isTarget says whether a map of `to` describes one target, and not names with weights: the name is no number.
func (d *decoder) isTarget(n ast.Node) bool {
	values, _ := d.pairs("to", n)
	for _, pair := range values {
		if key, ok := pair.Key.(*ast.StringNode); ok && key.Value == "upstream" {
			_, number := d.resolve(pair.Value).(*ast.IntegerNode)
			return !number
		}
	}
	return false
}

// target reads an upstream with what else is said of it. Where the name stands before it, in a map of names, it has none of its own.
func (d *decoder) target(key string, n ast.Node, name string) (t Target, ok bool) {
	switch n = d.resolve(n); {
	case n == nil:
		return t, false
	case !isMap(n):
		d.problem(n, "write { upstream: NAME, weight: 1 }", "each upstream in a list is a map, not %s", describe(n))
		return t, false
	}
	t = Target{Upstream: name, Weight: 1, Pos: d.at(n)}
	valid := "weight subset otherwise"
	if name == "" {
		valid = "upstream " + valid
	}
	var otherwise ast.Node
	instead := "none"
	ok = d.mapping(key, n, valid, func(key string, k, v ast.Node) bool {
		switch {
		case key == "upstream" && name == "":
			t.Pos = d.at(v)
			d.text(key, v, &t.Upstream)
		case key == "weight":
			d.integer(key, v, 0, 1000, &t.Weight)
		case key == "subset":
			if d.labels(key, v, &t.Subset); t.Subset == nil {
				d.problem(k, "write subset: { version: v2 }", "%q has no labels", key)
			}
		case key == "otherwise":
			otherwise = k
			d.word(key, v, "any none", &instead)
		default:
			return false
		}
		return true
	})
	switch {
	case !ok:
	case t.Upstream == "":
		d.problem(n, "", "%q has no %q", key, "upstream")
		return t, false
	case otherwise != nil && t.Subset == nil:
		d.problem(otherwise, "", "%q is of no use without %q", "otherwise", "subset")
	}
	t.OrAny = instead == "any"
	return t, ok
}

// addTarget takes a target into a route.
func (d *decoder) addTarget(n ast.Node, t Target, r *Route) {
	for i := range r.To {
		if o := &r.To[i]; o.Upstream == t.Upstream && maps.Equal(o.Subset, t.Subset) {
			d.problem(n, "give it a weight instead", "this stands in the list already, at %s", o.Pos)
			return
		}
	}
	if len(r.To) == maxTargets {
		d.problem(n, "", "a route has at most %d upstreams", maxTargets)
		return
	}
	r.To = append(r.To, t)
}

// Key tells a target's subset from others of the same upstream; "" for all endpoints.
func (t *Target) Key() string {
	if t.Subset == nil {
		return ""
	}
	return labelText(t.Subset) + " or " + t.otherwise()
}

// otherwise is how it is written what takes the subset's place.
func (t *Target) otherwise() string {
	if t.OrAny {
		return "any"
	}
	return "none"
}

// Name tells the target from the others of its route: the upstream's name, and the labels of its subset as in catalog{tier=1,version=v2}.
func (t *Target) Name() string {
	if t.Subset == nil {
		return t.Upstream
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(t.Subset)) {
		list = append(list, name+"="+t.Subset[name])
	}
	return t.Upstream + "{" + strings.Join(list, ",") + "}"
}

// checkSubsets finds subsets that no endpoint is in, and upstreams with too many.
func (l *loader) checkSubsets() {
	seen := map[int]map[string]bool{}
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		for j, t := range r.upstreams() {
			at, ok := l.upstreams[t.Upstream]
			if !ok || t.Subset == nil {
				continue
			}
			if seen[at] == nil {
				seen[at] = map[string]bool{}
			}
			if seen[at][t.Key()] = true; len(seen[at]) == maxSubsets+1 {
				l.problemAt(t.Pos, "", "routes have more than %d different subsets of upstream %q", maxSubsets, t.Upstream)
			}
			if u := &l.cfg.Upstreams[at]; j < len(r.To) && len(u.Files) == 0 && !slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return e.has(t.Subset) }) {
				l.warnAt(t.Pos, "", "no endpoint of upstream %q has the labels %s", t.Upstream, labelText(t.Subset))
			}
		}
	}
}

// has says whether the endpoint has all labels.
func (e *Endpoint) has(labels map[string]string) bool {
	for name, want := range labels {
		if e.Labels[name] != want {
			return false
		}
	}
	return true
}

// Equal says whether two endpoints are written the same, wherever they stand.
func (e *Endpoint) Equal(o *Endpoint) bool {
	return e.Address == o.Address && e.Weight == o.Weight && e.Priority == o.Priority && e.Zone == o.Zone && maps.Equal(e.Labels, o.Labels)
}

// labelText writes labels as a YAML map.
func labelText(labels map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, quote(name)+": "+quote(labels[name]))
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

func (w *dumper) endpoints(u *Upstream) {
	more := func(e *Endpoint) (text string) {
		if e.Zone != "" {
			text = ", zone: " + quote(e.Zone)
		}
		if len(e.Labels) > 0 {
			text += ", labels: " + labelText(e.Labels)
		}
		return text
	}
	for i := range u.Endpoints {
		switch e := &u.Endpoints[i]; {
		case strings.HasPrefix(e.Address, servicePrefix):
			w.line("- { address: %s, priority: %d%s }", quote(e.Address), e.Priority, more(e))
		default:
			w.line("- { address: %s, weight: %d, priority: %d%s }", quote(e.Address), e.Weight, e.Priority, more(e))
		}
	}
	for i := range u.Files {
		e := &u.Files[i].Defaults
		w.line("- { file: %s, weight: %d, priority: %d%s }", quote(u.Files[i].Path), e.Weight, e.Priority, more(e))
	}
}

func (w *dumper) resolving(r *Resolve) {
	when := fmt.Sprintf("min: %s, max: %s", formatDuration(r.Min), formatDuration(r.Max))
	if r.Every > 0 {
		when = "every: " + formatDuration(r.Every)
	}
	servers := ""
	if len(r.Servers) > 0 {
		servers = ", servers: " + serverList(r.Servers)
	}
	w.line("resolve: { %s, timeout: %s, family: %s%s }", when, formatDuration(r.Timeout), r.Family, servers)
}

func (w *dumper) targets(r *Route) {
	plain := true
	for i := range r.To {
		plain = plain && r.To[i].Subset == nil
	}
	for i := range r.To {
		switch t := &r.To[i]; {
		case plain:
			w.line("%s: %d", quote(t.Upstream), t.Weight)
		case t.Subset == nil:
			w.line("- { upstream: %s, weight: %d }", quote(t.Upstream), t.Weight)
		default:
			w.line("- { upstream: %s, weight: %d, subset: %s, otherwise: %s }", quote(t.Upstream), t.Weight, labelText(t.Subset), t.otherwise())
		}
	}
}

func serverList(list []netip.AddrPort) string {
	texts := make([]string, len(list))
	for i, at := range list {
		texts[i] = at.String()
	}
	return quoteList(texts)
}
