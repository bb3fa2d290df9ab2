// Package observe sees every exchange last and tells of it: counters and histograms in the Prometheus text format, one
// JSON line in the access log, and the story of each exchange of the routes that somebody is debugging.
//
// What is counted belongs to the loop that counts it: Observe adds to plain integers that it finds by small numbers, which
// a Registry gave to listeners, routes, pools and endpoints before they were put in force. Nothing on that path locks,
// allocates or looks up a name. Who reads asks each loop for a copy and adds the copies up.
package observe

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// Options are what an Observer is made of. Loops must be above zero.
type Options struct {
	Loops   int
	Version string // of the build
	Commit  string
	Log     *ErrorLog // nil: stories of debugged routes are not told
}

// Observer implements core.Observer. Make it before the loops, give it the loops before they serve.
type Observer struct {
	options  Options
	registry *Registry
	started  atomic.Pointer[time.Time] // with a monotonic reading: a clock that is set changes no uptime

	cells []*cells     // by loop; each touched by its loop only
	loops []*loop.Loop // by index, after Attach; immutable from then on

	access  atomic.Pointer[AccessLog]
	debug   atomic.Pointer[routeSet] // routes whose exchanges are told; nil: none
	debugMu sync.Mutex               // who changes debug

	reloads    [2]atomic.Uint64 // refused, applied
	reloadedAt atomic.Int64     // Unix seconds of the last applied one

	// logMu is held where an access log's counts move: a scrape meanwhile must not find them nowhere, or twice.
	logMu   sync.Mutex
	leaving *AccessLog // whose last lines are being written
	// Of access logs that are closed by now.
	closedLines, closedDropped, closedErrors atomic.Uint64

	scrape scrape
}

// New gives an observer without loops.
func New(o Options) *Observer {
	if o.Loops < 1 {
		panic("BUG: an observer needs loops")
	}
	ob := &Observer{options: o}
	now := time.Now()
	ob.started.Store(&now)
	ob.registry = newRegistry(ob.forget)
	for range o.Loops {
		ob.cells = append(ob.cells, newCells())
	}
	ob.scrape.last = make([]lastKnown, o.Loops)
	return ob
}

// Registry gives out the numbers by which exchanges name what they met.
func (o *Observer) Registry() *Registry { return o.registry }

// Began says when the service began, if that was in another process.
func (o *Observer) Began(at time.Time) {
	now := time.Now()
	began := now.Add(-now.Sub(at))
	o.started.Store(&began)
}

// Late counts how often a task held loop i. It is meant for loop.Options.Late.
func (o *Observer) Late(i int) func(held time.Duration, by string) {
	c := o.cells[i]
	return func(held time.Duration, _ string) {
		c.late++
		c.lateTime += int64(held)
	}
}

// Panicked counts the panics of loop i. It is meant for loop.Options.Panicked.
func (o *Observer) Panicked(i int) func() {
	c := o.cells[i]
	return func() { c.panics++ }
}

// Attach gives the loops, as many as Options said and each at its Index, before any serves.
func (o *Observer) Attach(loops []*loop.Loop) {
	if len(loops) != len(o.cells) {
		panic(fmt.Sprintf("BUG: %d loops for an observer of %d", len(loops), len(o.cells)))
	}
	o.loops = loops
}

// Reloaded counts a reload of the configuration.
func (o *Observer) Reloaded(applied bool) {
	if !applied {
		o.reloads[0].Add(1)
		return
	}
	o.reloads[1].Add(1)
	o.reloadedAt.Store(time.Now().Unix())
}

// Observe counts x and writes its line. It runs on x's loop, after the last byte.
func (o *Observer) Observe(x *core.Exchange) {
	index := x.Worker.Loop.Index()
	t := measure(x)
	o.cells[index].observe(x, &t)
	if a := o.access.Load(); a != nil {
		a.lanes[index].observe(x, &t)
	}
	if s := o.debug.Load(); s != nil && x.Route != nil && s.has(x.Route.Metric) {
		o.tell(x, &t)
	}
}

// Failed counts a failed attempt that x outlives, since it is made again elsewhere: Observe sees but the last. It runs on
// x's loop, with x.Sent naming the pool and endpoint of the attempt.
func (o *Observer) Failed(x *core.Exchange, err *core.Error) {
	o.cells[x.Worker.Loop.Index()].fail(x, err)
}

// forget clears the counters of ids that will be given to others.
func (o *Observer) forget(k Kind, ids []int) {
	for i, l := range o.loops {
		c := o.cells[i]
		l.Post(func() { c.forget(k, ids) })
	}
	if k == Routes {
		for _, id := range ids {
			o.setDebug(id, "", false)
		}
	}
}

// times is what an exchange took, in nanoseconds.
type times struct {
	status   int
	tunnel   bool  // how long it lived is not how fast anybody was
	request  int64 // first byte of the request seen to last byte of the response handed over
	upstream int64 // request handed over to first byte of the response seen; -1: the upstream was not asked
	// gateway is what the gateway added: from the first byte of the request to the request's way to the upstream, and from
	// the last byte of the upstream's response to the end. It leaves out the wait for the response and the streaming of its
	// body, which go at the pace of upstream and client. What is left of other parties in it cannot be told apart: a head
	// that the client sends in pieces, the wait for a connection to the upstream and for attempts that failed, and a client
	// that does not take the end of the response.
	gateway int64
}

// measure takes an exchange's times from its instants. An instant may be missing: what failed never reached it.
func measure(x *core.Exchange) (t times) {
	at := &x.Times
	t.status = x.Response.Status
	t.tunnel = x.OpensTunnel() || x.Passed
	if x.Err != nil && x.Err.Status == 0 && x.Sent.ResponseHead == 0 {
		t.status = 0 // nobody was told
	}
	t.request = max(at.End-at.Start, 0)
	if at.Sent == 0 {
		t.upstream, t.gateway = -1, t.request
		return t
	}
	head, done := at.Head, at.Done
	if head == 0 {
		head = at.End
	}
	if done < head {
		done = at.End
	}
	t.upstream = max(head-at.Sent, 0)
	t.gateway = max(at.Sent-at.Start, 0) + max(at.End-done, 0)
	return t
}
