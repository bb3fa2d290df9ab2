package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Hedge says when a second attempt is made beside one that is not answered: after a time, or after the percentile of those that others
// took. The zero Hedge is off.
type Hedge struct {
	After      time.Duration // 1ms..1m; 0: by Percentile
	Percentile float64       // 1..99.9

	pos Pos
}

const maxHedgeAfter = time.Minute

// hedge reads off, when, or a map.
func (d *decoder) hedge(key string, n ast.Node, h *Hedge) {
	pos := d.at(n)
	n = d.resolve(n)
	switch n := n.(type) {
	case nil:
		return
	case *ast.MappingNode, *ast.MappingValueNode:
		hasAfter := false
		ok := d.mapping(key, n, "after at_most", func(key string, _, v ast.Node) bool {
			switch key {
			case "after":
				hasAfter = true
				d.hedgeAfter(key, v, h)
			case "at_most":
				one := 1
				d.integer(key, v, 1, 1, &one)
			default:
				return false
			}
			return true
		})
		if ok && !hasAfter {
			d.problem(n, "", "%q has no %q", key, "after")
		}
	default:
		d.hedgeAfter(key, n, h)
	}
	h.pos = pos
}

// hedgeAfter reads a time, or p and a percentile.
func (d *decoder) hedgeAfter(key string, n ast.Node, h *Hedge) {
	n = d.resolve(n)
	if s, ok := n.(*ast.StringNode); ok {
		if s.Value == "off" {
			*h = Hedge{}
			return
		}
		if number, is := strings.CutPrefix(s.Value, "p"); is {
			v, err := strconv.ParseFloat(number, 64)
			if err != nil || strings.Trim(number, "0123456789.") != "" || v < 1 || v > 99.9 {
				d.problem(n, "such as p95", "a percentile must be from p1 to p99.9")
				return
			}
			*h = Hedge{Percentile: v}
			return
		}
	}
	after := time.Duration(0)
	if d.durationUpTo(key, n, time.Millisecond, maxHedgeAfter, &after); after > 0 {
		*h = Hedge{After: after}
	}
}

func (h *Hedge) on() bool { return h.After > 0 || h.Percentile > 0 }

// text is the hedge as it is written.
func (h *Hedge) text() string {
	switch {
	case h.After > 0:
		return fmt.Sprintf("{ after: %s, at_most: 1 }", formatDuration(h.After))
	case h.Percentile > 0:
		return fmt.Sprintf("{ after: p%s, at_most: 1 }", formatShare(h.Percentile))
	}
	return "off"
}

// endpoint is the address of the only one; "": there are several.
func (u *Upstream) endpoint() string {
	if len(u.Endpoints) != 1 {
		return ""
	}
	return u.Endpoints[0].Address
}

// checkHedges finds second attempts where there is to be but one.
func (l *loader) checkHedges() {
	refuse := func(h *Hedge, r *Retry) {
		if h != nil && r != nil && h.on() && r.Attempts == 1 {
			l.problemAt(h.pos, "drop one of the two", "%q makes a second attempt, and retry allows but one, at %s", "hedge", r.pos)
		}
	}
	for i := range l.cfg.Upstreams {
		u := &l.cfg.Upstreams[i]
		refuse(&u.Hedge, &u.Retry)
		if _, err := netip.ParseAddrPort(u.endpoint()); u.Hedge.on() && err == nil { // a name may stand for several
			l.warnAt(u.Hedge.pos, "", "upstream %q has one endpoint: no attempt is made beside another", u.Name)
		}
	}
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		refuse(r.Hedge, r.Retry)
		for _, t := range r.To {
			if j, ok := l.upstreams[t.Upstream]; ok && r.Retry == nil {
				refuse(r.Hedge, &l.cfg.Upstreams[j].Retry)
			}
		}
	}
}
