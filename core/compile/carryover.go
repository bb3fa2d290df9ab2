package compile

import (
	"errors"
	"fmt"

	"github.com/sluice-gateway/sluice/health"
)

// Ejections are the states of endpoints that are ejected, or were not long ago, by upstream and address.
type Ejections map[string]map[string]health.EjectionRecord

// Ejections gives them for another process. It may be called from any goroutine.
func (c *Compiled) Ejections() Ejections {
	all := Ejections{}
	for name, d := range c.found {
		if one := d.ejections(); len(one) > 0 {
			all[name] = one
		}
	}
	return all
}

func (d *discovered) ejections() map[string]health.EjectionRecord {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := map[string]health.EjectionRecord{}
	for _, w := range d.outliers.watched {
		if r := d.outliers.detector.Record(w.watch.Tally, d.upstream.Clock()); r.Ejected || r.Multiplier > 0 {
			one[w.endpoint.Address] = r
		}
	}
	return one
}

// RestoreEjections takes over what another process gave, all or nothing, before c is in force. Upstreams and endpoints that are not known are
// left out.
func (c *Compiled) RestoreEjections(all Ejections) error {
	detector, err := health.NewDetector(health.DefaultOutlier(), source())
	if err != nil {
		return err
	}
	for name, one := range all {
		for address, r := range one {
			t := detector.Add(address, 0)
			if err := detector.Restore(t, r, 0); err != nil {
				return fmt.Errorf("upstream %q, endpoint %q: %w", name, address, err)
			}
			detector.Remove(t)
		}
	}
	for name, one := range all {
		if d := c.found[name]; d != nil {
			d.outliers.heirs = one
		}
	}
	return nil
}

// Breakers are the states of breakers, by the names of upstreams and routes.
type Breakers struct {
	Upstreams map[string]health.BreakerRecord `json:"upstreams,omitempty"`
	Routes    map[string]health.BreakerRecord `json:"routes,omitempty"`
}

// Breakers gives the states of those that are not as new, for another process. It may be called from any goroutine.
func (c *Compiled) Breakers(now int64) Breakers {
	all := Breakers{map[string]health.BreakerRecord{}, map[string]health.BreakerRecord{}}
	for key, b := range c.breakers {
		if r := b.Record(now); r.State != health.Closed {
			all.of(key)[key.name] = r
		}
	}
	return all
}

func (b *Breakers) of(key breakerKey) map[string]health.BreakerRecord {
	if key.route {
		return b.Routes
	}
	return b.Upstreams
}

// RestoreBreakers takes over what another process gave, before c is in force. What cannot be is left out, and is in the error.
func (c *Compiled) RestoreBreakers(all Breakers, now int64) error {
	var failed []error
	for key, b := range c.breakers {
		if r, ok := all.of(key)[key.name]; ok {
			if err := b.Restore(r, now); err != nil {
				failed = append(failed, fmt.Errorf("%s %q: %w", key.kind(), key.name, err))
			}
		}
	}
	return errors.Join(failed...)
}
