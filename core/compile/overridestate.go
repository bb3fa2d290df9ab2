package compile

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/discovery"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/lb"
)

// ExportedOverrides are what is known of an upstream's endpoints besides their configuration, as another process takes it over: what was
// changed at run time, which holds there as over a reload, as long as the configuration says the same of the endpoint; and what names resolve
// to, which are asked for anew at once.
type ExportedOverrides struct {
	Added     []string             `json:"added,omitempty"`   // addresses
	Removed   []ExportedEndpoint   `json:"removed,omitempty"` // by address as configured
	Endpoints []OverriddenEndpoint `json:"endpoints,omitempty"`

	Names map[string][]discovery.Target `json:"names,omitempty"` // by what nameOf gives
}

// ExportedEndpoint is an endpoint as it was configured.
type ExportedEndpoint struct {
	Address  string            `json:"address"`
	Weight   int               `json:"weight"`
	Priority int               `json:"priority,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// OverriddenEndpoint is an address in use, with what is in force instead of what is configured.
type OverriddenEndpoint struct {
	ExportedEndpoint
	Set   *int   `json:"set,omitempty"`   // weight; nil: the configured one
	State string `json:"state,omitempty"` // drain, disable, or neither
}

// maxExported bounds the text of an address, a zone or a label that is taken over.
const maxExported = 512

// Overrides gives those of all upstreams, for another process. It may be called from any goroutine.
func (c *Compiled) Overrides() map[string]ExportedOverrides {
	all := map[string]ExportedOverrides{}
	for name, d := range c.found {
		if one := d.overrides(); len(one.Added)+len(one.Removed)+len(one.Endpoints)+len(one.Names) > 0 {
			all[name] = one
		}
	}
	return all
}

func (d *discovered) overrides() (out ExportedOverrides) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		return out
	}
	for _, e := range d.roster.added {
		out.Added = append(out.Added, e.Address)
	}
	for _, address := range d.roster.removed {
		if i := at(d.all.Endpoints, address); i >= 0 {
			e := &d.all.Endpoints[i]
			out.Removed = append(out.Removed, ExportedEndpoint{e.Address, e.Weight, e.Priority, e.Zone, e.Labels})
		}
	}
	for name, w := range d.names {
		if len(w.targets) == 0 {
			continue
		}
		if out.Names == nil {
			out.Names = map[string][]discovery.Target{}
		}
		out.Names[name] = w.targets
	}
	for _, e := range d.upstream.Endpoints() {
		w := e.Described()
		one := OverriddenEndpoint{ExportedEndpoint: ExportedEndpoint{e.Address, w.Weight, w.Priority, w.Zone, w.Labels}}
		if set := e.Load.Weight(); set >= 0 {
			one.Set = &set
		}
		switch flags := e.Load.Flags(); {
		case flags&lb.Disabled != 0:
			one.State = "disable"
		case flags&lb.Draining != 0:
			one.State = "drain"
		}
		if one.Set != nil || one.State != "" {
			out.Endpoints = append(out.Endpoints, one)
		}
	}
	return out
}

// RestoreOverrides takes over what another process gave, all or nothing, before c is in force. Upstreams that are not known are left out, as
// are endpoints that the configuration describes otherwise.
func (c *Compiled) RestoreOverrides(all map[string]ExportedOverrides) error {
	for name, one := range all {
		if err := one.check(); err != nil {
			return fmt.Errorf("upstream %q: %w", clipped(name), err)
		}
	}
	for name, one := range all {
		if d := c.found[name]; d != nil {
			d.inherited = &one
		}
	}
	return nil
}

// check refuses what no process can have given.
func (o *ExportedOverrides) check() error {
	if len(o.Added) > maxAdded || len(o.Removed) > maxMembers || len(o.Endpoints) > maxMembers || len(o.Names) > maxMembers {
		return fmt.Errorf("%d endpoints added, %d removed and %d changed, and %d names, are too many", len(o.Added), len(o.Removed), len(o.Endpoints), len(o.Names))
	}
	for name, targets := range o.Names {
		if len(targets) > discovery.MaxTargets || slices.ContainsFunc(targets, func(t discovery.Target) bool { return !t.Possible() }) {
			return fmt.Errorf("%q cannot resolve to that", clipped(name))
		}
	}
	seen := map[string]bool{}
	for _, address := range o.Added {
		if !isAddress(address) || seen[address] {
			return fmt.Errorf("%q cannot have been added", clipped(address))
		}
		seen[address] = true
	}
	clear(seen)
	for i := range o.Removed {
		if e := &o.Removed[i]; !e.possible() || seen[e.Address] {
			return fmt.Errorf("%q cannot have been removed", clipped(e.Address))
		}
		seen[o.Removed[i].Address] = true
	}
	clear(seen)
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		switch {
		case !e.possible() || seen[e.Address]:
			return fmt.Errorf("%q cannot be an endpoint", clipped(e.Address))
		case e.Set != nil && (*e.Set < 0 || *e.Set > lb.MaxWeight):
			return fmt.Errorf("endpoint %q: weight %d is not from 0 to %d", e.Address, *e.Set, lb.MaxWeight)
		case e.State != "" && e.State != "drain" && e.State != "disable":
			return fmt.Errorf("endpoint %q: unknown state %q", e.Address, clipped(e.State))
		}
		seen[e.Address] = true
	}
	return nil
}

// possible says whether there can be such an endpoint, as far as it is of use: it is only ever compared to those that there are.
func (e *ExportedEndpoint) possible() bool {
	return e.Address != "" && len(e.Address) <= maxExported && len(e.Zone) <= maxExported
}

// clipped is text of somebody else, short enough to be told.
func clipped(text string) string { return text[:min(len(text), 100)] }

// roster is what o makes of the endpoints of spec.
func (o *ExportedOverrides) roster(spec *config.Upstream) (r roster) {
	for _, address := range o.Added {
		if at(spec.Endpoints, address) < 0 {
			r.added = append(r.added, config.Endpoint{Address: address, Weight: 1})
		}
	}
	for i := range o.Removed {
		e := &o.Removed[i]
		if j := at(spec.Endpoints, e.Address); j >= 0 && spec.Endpoints[j].Equal(&config.Endpoint{Address: e.Address, Weight: e.Weight, Priority: e.Priority, Zone: e.Zone, Labels: e.Labels}) {
			r.removed = append(r.removed, e.Address)
		}
	}
	return r
}

// resume puts in force what was inherited of the endpoints, which are in the order of members, and says whether there was anything. It is
// called for the first that the upstream has; after that nothing is inherited any more.
func (d *discovered) resume(members []upstream.Member) (changed bool) {
	from := d.inherited
	if d.inherited = nil; from == nil {
		return false
	}
	by := map[string]*OverriddenEndpoint{}
	for i := range from.Endpoints {
		by[from.Endpoints[i].Address] = &from.Endpoints[i]
	}
	for i, e := range d.upstream.Endpoints() {
		o, m := by[e.Address], &members[i]
		if o == nil || !m.Learned && (m.Weight != o.Weight || m.Priority != o.Priority || m.Zone != o.Zone || !maps.Equal(m.Labels, o.Labels)) {
			continue
		}
		delete(by, e.Address) // of several at one address the first had it
		changed = true
		if o.Set != nil {
			e.Load.SetWeight(*o.Set)
		}
		switch o.State {
		case "drain":
			d.upstream.Override(e, upstream.Drain)
		case "disable":
			d.upstream.Override(e, upstream.Disable)
		}
	}
	return changed
}
