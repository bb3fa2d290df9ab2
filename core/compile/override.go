package compile

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/lb"
)

// maxOverridden bounds the endpoints that one change names.
const maxOverridden = 1000

// Override changes endpoints of an upstream at run time, all or none of them. Each is named by its address, or by its name in
// the configuration, which may stand for several. what is weight, drain, disable, enable, add, remove or set; weight is 0..1000, or
// nil for the configured one, and for nothing but weight. What is added is an address, not a name; set makes the named endpoints the
// only ones. It may be called from any goroutine but a loop's; when it returns every loop is
// about to know.
func (c *Compiled) Override(name string, endpoints []string, what string, weight *int) error {
	d := c.found[name]
	if d == nil {
		return fmt.Errorf("there is no upstream %q", name)
	}
	change, err := d.override(endpoints, what, weight)
	if err != nil {
		return err
	}
	if len(endpoints) == 0 || len(endpoints) > maxOverridden {
		return fmt.Errorf("cannot change %d endpoints at once: from 1 to %d", len(endpoints), maxOverridden)
	}
	d.change(context.Background(), func() { err = change() })
	if err == nil {
		value := ""
		if weight != nil {
			value = strconv.Itoa(*weight)
		}
		d.registry.log.Info("endpoints changed at run time", "upstream", name, "endpoints", endpoints, "change", what, "weight", value)
	}
	return err
}

// override gives what is to be done under the lock.
func (d *discovered) override(endpoints []string, what string, weight *int) (func() error, error) {
	if weight != nil && what != "weight" {
		return nil, fmt.Errorf("a weight is of no use with %q", what)
	}
	each := func(f func(e *upstream.Endpoint)) (func() error, error) {
		return func() error {
			all, err := named(d.upstream, endpoints)
			for _, e := range all {
				f(e)
			}
			return err
		}, nil
	}
	switch what {
	case "drain":
		return each(func(e *upstream.Endpoint) { d.upstream.Override(e, upstream.Drain) })
	case "disable":
		return each(func(e *upstream.Endpoint) { d.upstream.Override(e, upstream.Disable) })
	case "enable":
		return each(func(e *upstream.Endpoint) { d.upstream.Override(e, upstream.Enable) })
	case "weight":
		w := -1
		if weight != nil {
			if w = *weight; w < 0 || w > lb.MaxWeight {
				return nil, fmt.Errorf("weight %d is not from 0 to %d", w, lb.MaxWeight)
			}
		}
		return each(func(e *upstream.Endpoint) { e.Load.SetWeight(w) })
	case "add", "remove", "set":
		return func() error {
			next, err := d.roster.change(d.all, what, endpoints)
			if err == nil {
				d.roster = next
				d.assign()
			}
			return err
		}, nil
	}
	return nil, fmt.Errorf("unknown change %q: weight, drain, disable, enable, add, remove or set", what)
}

// named finds endpoints by address or name.
func named(u *upstream.Upstream, names []string) (all []*upstream.Endpoint, err error) {
	for _, name := range names {
		before := len(all)
		for _, e := range u.Endpoints() {
			if e.Address == name || e.Name == name {
				all = append(all, e)
			}
		}
		if len(all) == before {
			return nil, fmt.Errorf("upstream %q has no endpoint %q", u.Name, name)
		}
	}
	return all, nil
}
