package observe

import "github.com/sluice-gateway/sluice/core"

// Statuses are counted by class; class 0 is of those whom nobody could be told: the client had gone.
const classes = 6

var classNames = [classes]string{"gone", "1xx", "2xx", "3xx", "4xx", "5xx"}

// class is the class of a status. What is no status counts as 5xx.
func class(status int) int {
	if c := status / 100; uint(c) < classes {
		return c
	}
	return classes - 1
}

// byClass counts requests.
type byClass [classes]uint64

func (b *byClass) merge(o *byClass) {
	for i, n := range o {
		b[i] += n
	}
}

type listenerCell struct{ requests byClass }

func (c *listenerCell) merge(o *listenerCell) { c.requests.merge(&o.requests) }

// append writes the numbers of a cell one behind the other, and take reads them back: for another process.
func (c *listenerCell) append(b []uint64) []uint64 { return append(b, c.requests[:]...) }

func (c *listenerCell) take(v []uint64) bool { return copy(c.requests[:], v) == len(v) }

type routeCell struct {
	requests                    byClass
	requestBytes, responseBytes uint64 // of bodies
	request, upstream, gateway  histogram
}

func (c *routeCell) merge(o *routeCell) {
	c.requests.merge(&o.requests)
	c.requestBytes += o.requestBytes
	c.responseBytes += o.responseBytes
	c.request.merge(&o.request)
	c.upstream.merge(&o.upstream)
	c.gateway.merge(&o.gateway)
}

func (c *routeCell) append(b []uint64) []uint64 {
	b = append(append(b, c.requests[:]...), c.requestBytes, c.responseBytes)
	return c.gateway.append(c.upstream.append(c.request.append(b)))
}

func (c *routeCell) take(v []uint64) bool {
	v = v[copy(c.requests[:], v):]
	c.requestBytes, c.responseBytes = v[0], v[1]
	return len(c.gateway.take(c.upstream.take(c.request.take(v[2:])))) == 0
}

type poolCell struct{ requests, retries uint64 }

func (c *poolCell) merge(o *poolCell) {
	c.requests += o.requests
	c.retries += o.retries
}

type endpointCell struct {
	requests byClass
	duration histogram
}

func (c *endpointCell) merge(o *endpointCell) {
	c.requests.merge(&o.requests)
	c.duration.merge(&o.duration)
}

func (c *endpointCell) append(b []uint64) []uint64 {
	return c.duration.append(append(b, c.requests[:]...))
}

func (c *endpointCell) take(v []uint64) bool {
	return len(c.duration.take(v[copy(c.requests[:], v):])) == 0
}

// table holds cells by id. They are made when first used: what is never asked for costs a pointer.
type table[T any] []*T

func (t *table[T]) at(id int) *T {
	if uint(id) < uint(len(*t)) {
		if c := (*t)[id]; c != nil {
			return c
		}
	}
	return t.make(id)
}

func (t *table[T]) make(id int) *T {
	if uint(id) >= maxIDs {
		id = None
	}
	for id >= len(*t) {
		*t = append(*t, nil)
	}
	if (*t)[id] == nil {
		(*t)[id] = new(T)
	}
	return (*t)[id]
}

func (t table[T]) clear(ids []int) {
	for _, id := range ids {
		if id < len(t) {
			t[id] = nil
		}
	}
}

// failure is an attempt's end at an endpoint.
type failure struct {
	pool, endpoint int
	err            *core.Error
}

// cells are what one loop counts. Only that loop touches them.
type cells struct {
	listeners table[listenerCell]
	routes    table[routeCell]
	pools     table[poolCell]
	endpoints table[endpointCell]
	rejects   map[*core.Error]uint64
	failures  map[failure]uint64

	late     uint64 // tasks that held the loop
	lateTime int64  // nanoseconds, of those tasks
	panics   uint64

	_ [64]byte // keeps the counters of two loops off one cache line
}

// Errors are made once, at start, so that both maps stay small. A bound holds if somebody makes them anew for each failure.
const (
	maxRejects  = 1024
	maxFailures = 1 << 16
)

// errOther stands for the errors past the bound.
var errOther = &core.Error{Reason: "other", Side: core.SideInternal}

func newCells() *cells {
	return &cells{rejects: map[*core.Error]uint64{}, failures: map[failure]uint64{}}
}

func (c *cells) observe(x *core.Exchange, t *times) {
	k := class(t.status)
	listener, route := None, None
	if x.Listener != nil {
		listener = x.Listener.Metric
	}
	c.listeners.at(listener).requests[k]++
	if x.Route != nil {
		route = x.Route.Metric
	}
	r := c.routes.at(route)
	r.requests[k]++
	r.requestBytes += uint64(x.Sent.RequestBody)
	r.responseBytes += uint64(x.Sent.ResponseBody)
	if !t.tunnel {
		r.request.add(t.request)
		r.gateway.add(t.gateway)
		if t.upstream >= 0 {
			r.upstream.add(t.upstream)
		}
	}
	if x.Sent.Pool != nil {
		c.upstream(x, t)
	}
	if x.Err != nil {
		c.reject(x)
	}
}

// upstream counts what the exchange's last attempt came to.
func (c *cells) upstream(x *core.Exchange, t *times) {
	p := c.pools.at(x.Sent.Pool.Metric)
	p.requests++
	p.retries += uint64(x.Sent.Retries)
	if x.Times.Head == 0 || x.Sent.Endpoint == nil {
		return // no answer: the failure is counted by its reason
	}
	e := c.endpoints.at(x.Sent.Endpoint.Metric)
	e.requests[class(t.status)]++
	if !t.tunnel {
		e.duration.add(t.upstream)
	}
}

func (c *cells) reject(x *core.Exchange) {
	err := x.Err
	if err.Side == core.SideUpstream && x.Sent.Pool != nil {
		c.fail(x, err)
	}
	c.addReject(err, 1)
}

func (c *cells) addReject(err *core.Error, n uint64) {
	if _, ok := c.rejects[err]; !ok && len(c.rejects) >= maxRejects {
		err = errOther
	}
	c.rejects[err] += n
}

func (c *cells) fail(x *core.Exchange, err *core.Error) {
	f := failure{err: err}
	if x.Sent.Pool != nil {
		f.pool = x.Sent.Pool.Metric
	}
	switch err {
	case core.ErrNoEndpoint, core.ErrQueueFull, core.ErrQueueTimeout: // of the pool: no endpoint was asked
	default:
		if x.Sent.Endpoint != nil {
			f.endpoint = x.Sent.Endpoint.Metric
		}
	}
	c.addFailure(f, 1)
}

func (c *cells) addFailure(f failure, n uint64) {
	if _, ok := c.failures[f]; !ok && len(c.failures) >= maxFailures {
		f = failure{err: errOther}
	}
	c.failures[f] += n
}

func (c *cells) forget(k Kind, ids []int) {
	switch k {
	case Listeners:
		c.listeners.clear(ids)
	case Routes:
		c.routes.clear(ids)
	case Pools:
		c.pools.clear(ids)
	case Endpoints:
		c.endpoints.clear(ids)
	}
	if k != Pools && k != Endpoints {
		return
	}
	gone := make(map[int]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	for f := range c.failures {
		if k == Pools && gone[f.pool] || k == Endpoints && gone[f.endpoint] {
			delete(c.failures, f)
		}
	}
}
