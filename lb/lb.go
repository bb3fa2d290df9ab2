// Package lb chooses the endpoint of a pool that gets the next attempt. It knows no message, no socket and no clock.
//
// # Which algorithm to choose
//
//	round_robin    each in turn, by weight. Requests that cost about the same, endpoints that are about as fast.
//	least_request  the one with the fewest requests in flight. The better choice wherever requests differ in cost or
//	               endpoints in speed: a slow endpoint fills up and is left alone. In doubt, this.
//	peak_ewma      the one that promises the shortest wait, by its latency. Where endpoints differ in distance or speed,
//	               or fail at times; it needs enough traffic to know the latencies.
//	random         by weight, with no memory at all. For many gateways before few endpoints that must not fall into step.
//	ring_hash      requests with the same key to the same endpoint; with a load factor a popular key spills over to the
//	               next. For caches and sessions with hot keys.
//	maglev         as ring_hash, more evenly spread and faster, moving slightly more keys when endpoints change.
//	source_ip      maglev over the client's address.
//
// An endpoint that fails at once is always idle, which makes least_request prefer it: eject it, by package health, or take
// peak_ewma, which counts a failure as a slow answer. The simulations of this package's tests print what each algorithm makes of
// an endpoint that is slow, and of one that fails.
//
// # How it fits together
//
// An Endpoint is an immutable description. Its Load is what all loops share of it: requests in flight, latency, why it is
// not to be used, its weight at run time. A Set is compiled, off the loops, from the endpoints, their loads and a Spec: what
// priorities, zones, panic and slow start say ends up as one weight of each endpoint. When anything of that changes, or Due
// has come, the owner builds another Set. A Picker is a Set's presence on one event loop: it needs no lock, and NewPicker lets
// it go on where its predecessor was. Whoever sends a request calls Load.Begin and, when the answer has ended, Load.End.
package lb

// Endpoint is one address of a pool. It is immutable and lives as long as a set or an exchange points to it; may be read
// from anywhere.
type Endpoint struct {
	Address  string            // host:port with the address resolved, or unix:/path; what hashing goes by
	Name     string            // as configured, for logs and metrics
	Weight   int               // 0..1000, as configured; with 0 it gets nothing
	Metric   int               // index of its counters
	State    any               // what the pool's owner keeps of it; opaque here
	Load     *Load             // outlives the endpoint; NewRoundRobin alone does without
	Priority int               // 0 is used first
	Zone     string            // where it stands; "" is a zone like any other
	Labels   map[string]string // what Subset selects by
}

// MaxWeight bounds the weight of an endpoint.
const MaxWeight = 1000

// Picker chooses an endpoint that the attempt has not tried, nil when there is none. It belongs to one loop.
type Picker interface {
	Pick(a *Attempt) *Endpoint
}

// NewPicker gives the picker of one loop over s, which several loops share. seed, any number, keeps the loops of a gateway
// and the gateways of a fleet from choosing in step. previous, nil for none, is the picker of the same loop that this one
// replaces: a rotation goes on where it was. It takes time in proportion to the endpoints; pickers of all kinds allocate here
// and never in Pick.
func NewPicker(s *Set, seed uint64, previous Picker) Picker {
	d := newDrawing(s, seed)
	switch s.spec.Algorithm {
	case LeastRequest:
		return newLeastRequest(d, previous)
	case PeakEWMA:
		return newPeakEWMA(d)
	case Random:
		return &random{d}
	case RingHash, Maglev, SourceIP:
		return &hashing{d, bound{set: s}}
	}
	return newRotation(d, previous)
}
