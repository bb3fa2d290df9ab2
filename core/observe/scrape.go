package observe

import (
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

const (
	// scrapeTimeout is how long one loop may take to hand over its counters.
	scrapeTimeout = 500 * time.Millisecond
	// scrapeChunk bounds the cells that a loop copies at once: half a megabyte, so that no request waits for long.
	scrapeChunk = 1024
)

// scrape is what readers of the metrics share. One scrape runs at a time.
type scrape struct {
	mu   sync.Mutex
	last []lastKnown // by loop
	// inherited is what other packages had counted in the process before, in so many series; nil: nothing.
	inherited *Sink
	series    int

	collectMu sync.Mutex // who adds collectors
	global    []func(*Sink)
	onLoops   []func(index int, s *Sink)
}

// lastKnown is a copy of a loop's counters, taken on the loop. What a loop that is held up does not hand over stays as it was.
type lastKnown struct {
	listeners table[listenerCell]
	routes    table[routeCell]
	pools     table[poolCell]
	endpoints table[endpointCell]
	rejects   map[*core.Error]uint64
	failures  map[failure]uint64
	late      uint64
	lateTime  int64
	panics    uint64
	sink      *Sink // of the collectors that run on loops
	stalled   bool
}

// gather brings last up to date, on all loops at once. The caller holds s.mu.
func (o *Observer) gather() {
	o.scrape.collectMu.Lock()
	onLoops := o.scrape.onLoops
	o.scrape.collectMu.Unlock()
	var done sync.WaitGroup
	for i, l := range o.loops {
		done.Add(1)
		go func() {
			defer done.Done()
			k := &o.scrape.last[i]
			err := k.take(l, o.cells[i], onLoops)
			k.stalled = errors.Is(err, loop.ErrLate)
		}()
	}
	done.Wait()
}

// take copies what loop l counted. Whatever the loop writes to is made anew for each try, since a loop that is late may
// write after take has given up.
func (k *lastKnown) take(l *loop.Loop, c *cells, onLoops []func(int, *Sink)) error {
	until := time.Now().Add(scrapeTimeout)
	fresh := &lastKnown{sink: newSink()}
	err := l.Do(time.Until(until), func() {
		fresh.rejects, fresh.failures = maps.Clone(c.rejects), maps.Clone(c.failures)
		fresh.late, fresh.lateTime, fresh.panics = c.late, c.lateTime, c.panics
		for _, f := range onLoops {
			f(l.Index(), fresh.sink)
		}
	})
	if err != nil {
		return err
	}
	k.rejects, k.failures, k.sink = fresh.rejects, fresh.failures, fresh.sink
	k.late, k.lateTime, k.panics = fresh.late, fresh.lateTime, fresh.panics
	if err := takeTable(l, until, &c.listeners, &k.listeners); err != nil {
		return err
	}
	if err := takeTable(l, until, &c.pools, &k.pools); err != nil {
		return err
	}
	if err := takeTable(l, until, &c.endpoints, &k.endpoints); err != nil {
		return err
	}
	return takeTable(l, until, &c.routes, &k.routes)
}

// takeTable copies a table piece by piece. from belongs to the loop.
func takeTable[T any](l *loop.Loop, until time.Time, from, to *table[T]) error {
	type chunk struct {
		ids    []int
		values []T
		next   int // where the next chunk starts
		size   int // of the table
	}
	for start := 0; ; {
		c := &chunk{ids: make([]int, 0, scrapeChunk)}
		err := l.Do(time.Until(until), func() {
			c.size = len(*from)
			for c.next = start; c.next < c.size && len(c.ids) < scrapeChunk && c.next-start < 64*scrapeChunk; c.next++ {
				if v := (*from)[c.next]; v != nil {
					c.ids = append(c.ids, c.next)
					c.values = append(c.values, *v)
				}
			}
		})
		if err != nil {
			return err
		}
		for len(*to) < c.size {
			*to = append(*to, nil)
		}
		clear((*to)[start:c.next])
		for i, id := range c.ids {
			(*to)[id] = &c.values[i]
		}
		if start = c.next; start >= c.size {
			return nil
		}
	}
}

// view is one kind of cells among what is known of the loops.
type view[T any] struct {
	kind  Kind
	of    func(*lastKnown) table[T]
	merge func(sum, with *T)
}

var (
	listenerView = view[listenerCell]{Listeners, func(k *lastKnown) table[listenerCell] { return k.listeners }, (*listenerCell).merge}
	routeView    = view[routeCell]{Routes, func(k *lastKnown) table[routeCell] { return k.routes }, (*routeCell).merge}
	poolView     = view[poolCell]{Pools, func(k *lastKnown) table[poolCell] { return k.pools }, (*poolCell).merge}
	endpointView = view[endpointCell]{Endpoints, func(k *lastKnown) table[endpointCell] { return k.endpoints }, (*endpointCell).merge}
)

// sum adds up what the loops know of one id; ok is false where none has used it.
func (v *view[T]) sum(last []lastKnown, id int) (total T, ok bool) {
	for i := range last {
		if t := v.of(&last[i]); id < len(t) && t[id] != nil {
			v.merge(&total, t[id])
			ok = true
		}
	}
	return total, ok
}

// WriteMetrics writes everything in the Prometheus text format. It waits for the loops, up to a bound, and must not be
// called on one.
func (o *Observer) WriteMetrics(w io.Writer) error {
	o.scrape.mu.Lock()
	defer o.scrape.mu.Unlock()
	o.gather()
	e := &exposition{w: w, buf: make([]byte, 0, expositionBuffer+4096), last: o.scrape.last, registry: o.registry}
	o.expose(e)
	return e.finish()
}
