package compile

import (
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/observe"
)

// keepAfter is how long after a change of endpoints the metrics are told which names are in force: once for all that come in it.
const keepAfter = time.Second

// keeper tells the metrics which names are in force. It may be used from any goroutine but a loop's.
type keeper struct {
	mu       sync.Mutex
	metrics  *observe.Registry
	compiled *Compiled // in force; nil: none any more
	soon     *time.Timer
}

// keep tells them of c, which is in force from now on.
func (k *keeper) keep(metrics *observe.Registry, c *Compiled) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.metrics, k.compiled = metrics, c
	k.tell()
}

// tell tells them. The caller holds k.mu.
func (k *keeper) tell() {
	if k.soon != nil {
		k.soon.Stop()
		k.soon = nil
	}
	c := k.compiled
	if c == nil {
		return
	}
	var routes, listeners, pools, endpoints []int
	for _, x := range c.Snapshot.Routes {
		routes = append(routes, x.Metric)
	}
	for _, l := range c.Snapshot.Listeners {
		listeners = append(listeners, l.Metric)
	}
	for _, u := range c.Upstreams {
		pools = append(pools, u.Metric)
		for _, e := range u.Endpoints() {
			endpoints = append(endpoints, e.Metric)
		}
	}
	k.metrics.Keep(observe.Routes, routes)
	k.metrics.Keep(observe.Listeners, listeners)
	k.metrics.Keep(observe.Pools, pools)
	k.metrics.Keep(observe.Endpoints, endpoints)
}

// keepSoon tells the metrics of endpoints that have come and gone.
func (r *Registry) keepSoon() {
	k := &r.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.soon == nil && k.compiled != nil {
		k.soon = time.AfterFunc(keepAfter, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.tell()
		})
	}
}
