package config

import (
	"net/netip"
	"sort"
	"strings"
)

// maxRivals bounds the matches that one match is compared with, so that a file with many matches of one path loads in
// time in proportion to its size. What is missed is a warning.
const maxRivals = 64

// rival is a match and what decides whether it is looked at before another.
type rival struct {
	route, match int
	predicates   int
	group        int // of those with the same host and path
	next         int // in the group; -1 ends it
}

// place is what the matches of a group have in common.
type place struct {
	host Host
	kind PathKind
	path string
}

// checkShadows warns of matches that are never reached, because one that is looked at first takes all their requests.
func (l *loader) checkShadows() {
	all := make([]rival, 0, len(l.cfg.Routes))
	lowest := 0
	for i := range l.cfg.Routes {
		if l.names[i].partial || l.cfg.Routes[i].Passthrough { // those are compared by server name
			continue
		}
		r := &l.cfg.Routes[i]
		if len(all) == 0 {
			lowest = r.Priority
		}
		lowest = min(lowest, r.Priority)
		for j := range r.Matches {
			all = append(all, rival{route: i, match: j, predicates: r.Matches[j].predicates(), next: -1})
		}
	}
	raised := l.raised(all, lowest)
	groups := make(map[place]int, len(all))
	var heads []int                      // of each group: its first match
	for i := len(all) - 1; i >= 0; i-- { // from the last, so that a group starts with the one written first
		m := &l.cfg.Routes[all[i].route].Matches[all[i].match]
		at := place{m.Host, m.Path.Kind, m.Path.shape()}
		group, ok := groups[at]
		if !ok {
			group = len(heads)
			groups[at] = group
			heads = append(heads, -1)
		}
		all[i].group, all[i].next = group, heads[group]
		heads[group] = i
	}
	for i := range all {
		b := &all[i]
		m := &l.cfg.Routes[b.route].Matches[b.match]
		winner := l.coveredBy(b, raised)
		if winner == nil {
			winner = l.coveredInGroup(all, i, heads[b.group])
		}
		if winner == nil {
			continue
		}
		if winner.route == b.route {
			l.warnAt(m.Pos, "", "this match is never reached: another match of the route takes its requests first")
			continue
		}
		w := &l.cfg.Routes[winner.route]
		l.warnAt(m.Pos, "", "this match is never reached: route %q at %s takes its requests first", clip(w.Name), w.Matches[winner.match].Pos)
	}
}

// raised returns the matches of the highest priorities, as long as these are above the lowest.
func (l *loader) raised(all []rival, lowest int) []rival {
	var raised []rival
	for _, r := range all {
		if l.cfg.Routes[r.route].Priority > lowest {
			raised = append(raised, r)
		}
	}
	sort.SliceStable(raised, func(i, j int) bool {
		return l.cfg.Routes[raised[i].route].Priority > l.cfg.Routes[raised[j].route].Priority
	})
	return raised[:min(len(raised), maxRivals)]
}

// coveredBy finds a match of higher priority that takes all requests of b.
func (l *loader) coveredBy(b *rival, raised []rival) *rival {
	rb := &l.cfg.Routes[b.route]
	for i := range raised {
		ra := &l.cfg.Routes[raised[i].route]
		if ra.Priority <= rb.Priority {
			return nil
		}
		ma, mb := &ra.Matches[raised[i].match], &rb.Matches[b.match]
		if ma.Host.covers(mb.Host) && ma.Path.covers(mb.Path) && ma.predicatesCover(mb) {
			return &raised[i]
		}
	}
	return nil
}

// coveredInGroup finds a match of the same host and path that takes all requests of all[index] and is looked at before.
func (l *loader) coveredInGroup(all []rival, index, head int) *rival {
	b := &all[index]
	rb := &l.cfg.Routes[b.route]
	for i, tries := head, 0; i >= 0 && tries < maxRivals; i, tries = all[i].next, tries+1 {
		if i == index {
			continue
		}
		a := &all[i]
		ra := &l.cfg.Routes[a.route]
		wins := ra.Priority > rb.Priority
		if ra.Priority == rb.Priority {
			wins = a.predicates > b.predicates || a.predicates == b.predicates && i < index
		}
		if wins && ra.Matches[a.match].predicatesCover(&rb.Matches[b.match]) {
			return a
		}
	}
	return nil
}

// predicates counts the conditions besides host and path.
func (m *Match) predicates() int {
	n := 0
	if m.Further != nil {
		n = m.Further.count()
	}
	if len(m.Methods) > 0 {
		n++
	}
	return n
}

// predicatesCover tells whether the conditions of o besides host and path imply those of m.
func (m *Match) predicatesCover(o *Match) bool {
	same := func(a, b string) bool { return a == b }
	own, others := m.further(), o.further()
	return impliedBy(own.Listeners, others.Listeners, same) &&
		impliedBy(m.Methods, o.Methods, same) &&
		impliedBy(own.ContentTypes, others.ContentTypes, func(a, b string) bool {
			prefix, wild := strings.CutSuffix(a, "*")
			return a == b || wild && strings.HasPrefix(b, prefix)
		}) &&
		impliedBy(own.Clients, others.Clients, func(a, b netip.Prefix) bool {
			return a.Bits() <= b.Bits() && a.Contains(b.Addr())
		}) &&
		fieldsCover(own.Headers, others.Headers) && fieldsCover(own.Query, others.Query) && fieldsCover(own.Cookies, others.Cookies)
}

// impliedBy tells whether each alternative of b falls under one of a. No alternatives at all mean that anything holds.
// Lists over maxRivals are not compared.
func impliedBy[T any](a, b []T, covers func(a, b T) bool) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 || len(a) > maxRivals || len(b) > maxRivals {
		return false
	}
	for i := range b {
		found := false
		for j := range a {
			found = found || covers(a[j], b[i])
		}
		if !found {
			return false
		}
	}
	return true
}

// fieldsCover tells whether the conditions b, which all hold, imply all of a.
func fieldsCover(a, b []FieldMatch) bool {
	for i := range a {
		found := false
		for j := range b {
			x, y := &a[i], &b[j]
			found = found || x.Name == y.Name && (x.Op == y.Op && x.Value == y.Value || x.Op == FieldPresent && y.Op != FieldAbsent)
		}
		if !found {
			return false
		}
	}
	return true
}

func (h Host) covers(o Host) bool {
	if h.Name == "" || h == o {
		return true
	}
	return h.Wildcard && strings.HasSuffix(o.Name, "."+h.Name)
}

// covers tells whether each path that matches o matches p. It is not sure of regular expressions that differ.
func (p Path) covers(o Path) bool {
	switch {
	case p.Kind == PathAny:
		return true
	case p.Kind == PathRegex || o.Kind == PathRegex || o.Kind == PathAny:
		return p.Kind == o.Kind && p.Value == o.Value
	case p.Kind == PathExact && o.Kind == PathPrefix:
		return false
	}
	have, want := o.Value, p.Value
	for want != "" {
		if have == "" {
			return false
		}
		var a, b string
		a, want = cutSegment(want)
		b, have = cutSegment(have)
		if _, any := parameter(a); any {
			if b == "" {
				return false
			}
		} else if a != b {
			return false
		}
	}
	return have == "" || p.Kind == PathPrefix
}

// shape returns the path's value with its parameters nameless.
func (p Path) shape() string {
	if p.Kind == PathRegex || !strings.Contains(p.Value, "{") {
		return p.Value
	}
	segments := strings.Split(p.Value, "/")
	for i := range segments {
		if _, ok := parameter(segments[i]); ok {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}
