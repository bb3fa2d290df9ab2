package compile

import (
	"fmt"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// mirror makes the mirror of a route; nil: it has none. It goes on with the counts of the one in force.
func (r *Registry) mirror(c *Compiled, route *config.Route) (*upstream.Mirror, error) {
	k := route.Mirror
	if k == nil {
		return nil, nil
	}
	d := c.found[k.To]
	if d == nil {
		return nil, fmt.Errorf("there is no upstream %q", k.To)
	}
	spec := upstream.MirrorSpec{Share: k.Share / 100, BodyBytes: int(k.BodyBytes), Timeout: k.Timeout, AtOnce: k.AtOnce, Mark: k.Mark}
	switch k.Host {
	case "upstream":
		spec.Host = upstream.MirrorHostUpstream
	case "shadow":
		spec.Host = upstream.MirrorHostShadow
	}
	before := r.mirrors[route.Name]
	if before != nil && before.To() != d.upstream {
		before = nil
	}
	m := upstream.NewMirror(d.upstream, spec, before, len(r.workers))
	c.Mirrors[route.Name] = m
	return m, nil
}
