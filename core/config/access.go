package config

import (
	"maps"

	"github.com/goccy/go-yaml/ast"
)

// Access says which consumers may use a route: those in any of the lists.
type Access struct {
	Groups    []string
	Consumers []string
	Tiers     []string

	named []reference // of Consumers
}

// maxAccess bounds each list.
const maxAccess = 10_000

func (d *decoder) access(key string, n ast.Node) *Access {
	a := &Access{}
	before := d.errors
	ok := d.mapping(key, n, "groups consumers tiers", func(key string, _, v ast.Node) bool {
		to := map[string]*[]string{"groups": &a.Groups, "consumers": &a.Consumers, "tiers": &a.Tiers}[key]
		if to == nil {
			return false
		}
		d.list(key, v, func(v ast.Node) {
			var s string
			switch {
			case !d.text(key, v, &s):
			case s == "" || len(s) > maxClaimBytes || hasControl(s):
				d.problem(v, "", "nobody has %q in %q", clip(s), key)
			case len(*to) == maxAccess:
				d.problem(v, "", "%q has more than %d entries", key, maxAccess)
			default:
				*to = append(*to, s)
				if key == "consumers" {
					a.named = append(a.named, reference{name: s, pos: d.at(v)})
				}
			}
		})
		return true
	})
	if ok && d.errors == before && len(a.Groups)+len(a.Consumers)+len(a.Tiers) == 0 {
		d.problem(n, "access: { groups: [partners] }", "%q lets nobody pass", key)
	}
	return a
}

// checkAccess refuses policies that nobody can pass since none before them finds out who a consumer is, and warns of names that
// nobody has where all consumers are known.
func (l *loader) checkAccess() {
	derived := l.cfg.ConsumersFile.Path != ""
	for i := range l.cfg.Routes {
		found := false
		l.policies(&l.cfg.Routes[i], func(u *Use, p *Policy) {
			found = found || p.authenticates()
			derived = derived || p.derives()
			if p.Access != nil && !found {
				l.problemAt(u.Pos, "put keyauth, or another policy that finds a consumer, before it",
					"%q refuses everybody here: no policy before it finds out who a consumer is", "access")
			}
		})
	}
	if derived {
		return
	}
	names := func(a *Access) {
		for _, ref := range a.named {
			if _, ok := l.roll.names[ref.name]; !ok {
				l.warnAt(ref.pos, l.hint(ref.name, maps.Keys(l.roll.names)), "there is no consumer %q", clip(ref.name))
			}
		}
	}
	for i := range l.cfg.Policies {
		if a := l.cfg.Policies[i].Access; a != nil {
			names(a)
		}
	}
	for i := range l.cfg.Routes {
		for _, u := range l.cfg.Routes[i].Use {
			if u.Inline != nil && u.Inline.Access != nil {
				names(u.Inline.Access)
			}
		}
	}
}

func (w *dumper) access(a *Access) {
	w.block("access:", func() {
		for _, list := range []struct {
			key    string
			values []string
		}{{"groups", a.Groups}, {"consumers", a.Consumers}, {"tiers", a.Tiers}} {
			if len(list.values) > 0 {
				w.line("%s: %s", list.key, quoteList(list.values))
			}
		}
	})
}
