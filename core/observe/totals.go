package observe

import (
	"math"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Count is what was counted under some names. Kind says what the names are and which numbers follow; one that is not known is
// left alone.
type Count struct {
	Kind   string   `json:"kind"`
	Names  []string `json:"names,omitempty"`
	Values []uint64 `json:"values"`
}

// Totals are the counters of an Observer, for the process that takes this one's place.
type Totals []Count

// The kinds of counts, and their names.
const (
	countListener  = "listener"  // the listener's
	countRoute     = "route"     // the route's
	countPool      = "upstream"  // the upstream's
	countEndpoint  = "endpoint"  // the upstream's, the address
	countReject    = "reject"    // reason, side
	countFailure   = "failure"   // the upstream's, that of the endpoint, its address, reason
	countCollected = "collected" // the family's, its help, the labels as they are written
	countLoops     = "loops"
	countSelf      = "self"
)

// maxCollected bounds the series of other packages that are taken over.
const maxCollected = 1 << 16

// Totals gives everything that has been counted. It waits for the loops, up to a bound, and must not be called on one.
func (o *Observer) Totals() (all Totals) {
	o.scrape.mu.Lock()
	defer o.scrape.mu.Unlock()
	o.gather()
	last := o.scrape.last
	add := func(kind string, values []uint64, names ...string) {
		all = append(all, Count{kind, names, values})
	}
	totals(o, &listenerView, func(n name, c *listenerCell) { add(countListener, c.append(nil), string(n)) })
	totals(o, &routeView, func(n name, c *routeCell) { add(countRoute, c.append(nil), string(n)) })
	totals(o, &poolView, func(n name, c *poolCell) { add(countPool, []uint64{c.requests, c.retries}, string(n)) })
	totals(o, &endpointView, func(n name, c *endpointCell) {
		pool, address := n.endpoint()
		add(countEndpoint, c.append(nil), pool, address)
	})
	pools, endpoints := o.registry.live(Pools), o.registry.live(Endpoints)
	var loops [3]uint64
	for i := range last {
		k := &last[i]
		loops[0], loops[1], loops[2] = loops[0]+k.late, loops[1]+uint64(k.lateTime), loops[2]+k.panics
		for err, n := range k.rejects {
			add(countReject, []uint64{n}, err.Reason, err.Side.String())
		}
		for f, n := range k.failures {
			p, at := nameOf(pools, f.pool), nameOf(endpoints, f.endpoint)
			if p != "" && at != "" {
				pool, address := at.endpoint()
				add(countFailure, []uint64{n}, string(p), pool, address, f.err.Reason)
			}
		}
	}
	add(countLoops, loops[:])
	lines, dropped, failures := o.logCounts()
	add(countSelf, []uint64{lines, dropped, failures, o.reloads[0].Load(), o.reloads[1].Load()})
	sink := o.collected(last)
	for _, n := range sink.names() {
		f := sink.families[n]
		if f.kind != "counter" {
			continue
		}
		for labels, v := range f.values {
			add(countCollected, []uint64{uint64(max(math.Round(v), 0))}, n, f.help, labels)
		}
	}
	return all
}

func totals[T any](o *Observer, v *view[T], f func(n name, c *T)) {
	for id, n := range o.registry.live(v.kind) {
		if total, ok := v.sum(o.scrape.last, id); ok && n != "" {
			f(n, &total)
		}
	}
}

// Since gives what was counted after before was.
func (t Totals) Since(before Totals) (more Totals) {
	key := func(c *Count) string { return c.Kind + "\x00" + strings.Join(c.Names, "\x00") }
	sums := map[string][]uint64{}
	for i := range before {
		k := key(&before[i])
		for j, v := range before[i].Values {
			if j >= len(sums[k]) {
				sums[k] = append(sums[k], 0)
			}
			sums[k][j] += v
		}
	}
	for i := range t {
		c := Count{t[i].Kind, t[i].Names, make([]uint64, len(t[i].Values))}
		had, any := sums[key(&t[i])], false
		for j, v := range t[i].Values {
			if j < len(had) { // what several counts have under one key is taken off them in turn
				taken := min(v, had[j])
				v, had[j] = v-taken, had[j]-taken
			}
			c.Values[j] = v
			any = any || v > 0
		}
		if any {
			more = append(more, c)
		}
	}
	return more
}

// Add counts t as if this process had: on the first loop, soon. What does not fit is left out; it says how many of t that were.
func (o *Observer) Add(t Totals) (left int) {
	errs := map[[2]string]*core.Error{}
	var onLoop []func(*cells)
	for i := range t {
		c := &t[i]
		f, ok := o.addition(c, errs)
		if !ok {
			left++
		} else if f != nil {
			onLoop = append(onLoop, f)
		}
	}
	cells := o.cells[0]
	for len(onLoop) > 0 {
		some := onLoop[:min(len(onLoop), scrapeChunk)] // the loop has others to serve
		onLoop = onLoop[len(some):]
		o.loops[0].Post(func() {
			for _, f := range some {
				f(cells)
			}
		})
	}
	return left
}

// addition finds how a count is added on a loop; nil: it has been added already, or there is nothing to it.
func (o *Observer) addition(c *Count, errs map[[2]string]*core.Error) (f func(*cells), ok bool) {
	fits := func(names, values int) bool { return len(c.Names) == names && len(c.Values) == values }
	switch v := c.Values; c.Kind {
	case countListener:
		add := &listenerCell{}
		id := o.registry.inherited(Listeners, c.Names...)
		return func(l *cells) { l.listeners.at(id).merge(add) }, fits(1, len(add.append(nil))) && add.take(v)
	case countRoute:
		add := &routeCell{}
		id := o.registry.inherited(Routes, c.Names...)
		return func(l *cells) { l.routes.at(id).merge(add) }, fits(1, len(add.append(nil))) && add.take(v)
	case countPool:
		id := o.registry.inherited(Pools, c.Names...)
		return func(l *cells) { l.pools.at(id).merge(&poolCell{v[0], v[1]}) }, fits(1, 2)
	case countEndpoint:
		add := &endpointCell{}
		id := o.registry.inherited(Endpoints, c.Names...)
		return func(l *cells) { l.endpoints.at(id).merge(add) }, fits(2, len(add.append(nil))) && add.take(v)
	case countReject:
		if !fits(2, 1) {
			return nil, false
		}
		err := errorOf(errs, c.Names[0], c.Names[1])
		return func(l *cells) { l.addReject(err, v[0]) }, err != nil
	case countFailure:
		if !fits(4, 1) {
			return nil, false
		}
		f := failure{o.registry.inherited(Pools, c.Names[0]), o.registry.inherited(Endpoints, c.Names[1:3]...),
			errorOf(errs, c.Names[3], core.SideUpstream.String())}
		return func(l *cells) { l.addFailure(f, v[0]) }, true
	case countLoops:
		return func(l *cells) { l.late, l.lateTime, l.panics = l.late+v[0], l.lateTime+int64(v[1]), l.panics+v[2] }, fits(0, 3)
	case countSelf:
		if !fits(0, 5) {
			return nil, false
		}
		o.closedLines.Add(v[0])
		o.closedDropped.Add(v[1])
		o.closedErrors.Add(v[2])
		o.reloads[0].Add(v[3])
		o.reloads[1].Add(v[4])
		return nil, true
	case countCollected:
		return nil, fits(3, 1) && o.inherit(c)
	}
	return nil, false
}

// errorOf gives an error that is counted as one of another process is, the same for the same.
func errorOf(errs map[[2]string]*core.Error, reason, side string) *core.Error {
	for _, s := range []core.Side{core.SideDownstream, core.SideUpstream, core.SideInternal} {
		if s.String() != side {
			continue
		}
		key := [2]string{reason, side}
		if errs[key] == nil && len(errs) < maxRejects {
			errs[key] = &core.Error{Reason: reason, Side: s}
		}
		if errs[key] == nil {
			return errOther
		}
		return errs[key]
	}
	return nil
}

// inherit adds a series of another package to what is collected at each scrape.
func (o *Observer) inherit(c *Count) bool {
	if strings.ContainsAny(c.Names[0]+c.Names[1]+c.Names[2], "\n\r") || strings.ContainsAny(c.Names[0], "{} \"") || c.Names[0] == "" {
		return false
	}
	o.scrape.mu.Lock()
	defer o.scrape.mu.Unlock()
	s := o.scrape.inherited
	if s == nil {
		s = newSink()
		o.scrape.inherited = s
	}
	f := s.families[c.Names[0]]
	if f == nil {
		f = &family{kind: "counter", help: c.Names[1], values: map[string]float64{}}
		s.families[c.Names[0]] = f
	}
	if _, had := f.values[c.Names[2]]; !had {
		if o.scrape.series >= maxCollected {
			return false
		}
		o.scrape.series++
	}
	f.values[c.Names[2]] += float64(c.Values[0])
	return true
}
