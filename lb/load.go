package lb

import (
	"sync/atomic"
	"time"
)

// Flag is a reason not to use an endpoint. Each has its own owner, who raises and clears it; an endpoint is available while
// none is up.
type Flag uint32

const (
	FailedCheck Flag = 1 << iota // active checks say that it is down
	Ejected                      // it failed too many requests
	Draining                     // it leaves: what it has may end, nothing new comes
	Disabled                     // an operator took it out
	Unchecked                    // nobody knows how it is: it waits for its first check
)

// unhealthy are the flags that panic disregards. Who drains or is disabled is so on purpose, and who is unchecked does not count
// as unhealthy, so that many new endpoints beside old ones do not bring panic about.
const unhealthy = FailedCheck | Ejected

// Load is what all loops share of one endpoint, under its address: it outlives sets, pickers and configurations. Its
// methods may be called from anywhere; none blocks or allocates.
type Load struct {
	inFlight atomic.Int64
	latency  latency
	_        [48]byte // what every request writes has a cache line of its own
	// From here on it changes with health and configuration only.
	flags   atomic.Uint32
	weight  atomic.Int32 // set at run time; -1: as configured
	since   atomic.Int64 // when it became available, in nanoseconds
	decay   atomic.Int64 // of the latency, in nanoseconds; 0: nobody asks for the latency
	penalty atomic.Int64 // what a failure counts as, at least, in nanoseconds
	_       [32]byte
}

// NewLoad gives the load of an endpoint that is available from now, in nanoseconds, on.
func NewLoad(now int64) *Load {
	l := &Load{}
	l.weight.Store(-1)
	l.since.Store(now)
	return l
}

// Begin counts a request that is about to be sent to the endpoint. Each Begin has one End.
func (l *Load) Begin() { l.inFlight.Add(1) }

// End counts the end of a request. latency is what the endpoint took, in nanoseconds, up to the head of its answer or its
// failure; now is on the clock of Attempt.Now. With failed the endpoint is to blame that there is no good answer.
func (l *Load) End(now, latency int64, failed bool) {
	latency = max(latency, 0)
	if failed { // else who refuses at once would look like the fastest
		latency = max(latency, l.penalty.Load())
	}
	l.end(now, latency)
}

// end counts the end of a request, with a latency to learn from or with -1.
func (l *Load) end(now, latency int64) {
	if l.inFlight.Add(-1) < 0 {
		panic("BUG: lb: a request ended that had not begun")
	}
	if decay := l.decay.Load(); decay != 0 && latency >= 0 {
		l.latency.observe(now, latency, decay)
	}
}

// Leave counts the end of a request whose client did not wait for the answer, after so many nanoseconds. That says of the
// latency only that it would have been longer.
func (l *Load) Leave(now, waited int64) {
	if decay := l.decay.Load(); decay == 0 || time.Duration(waited) <= l.Latency(now) {
		waited = -1
	}
	l.end(now, waited)
}

// InFlight is the number of requests that have begun and not ended.
func (l *Load) InFlight() int { return int(l.inFlight.Load()) }

// Latency is the peak-sensitive average of the latencies, decayed until now; 0 before the first, and where the algorithm
// does not need it.
func (l *Load) Latency(now int64) time.Duration {
	decay := l.decay.Load()
	if decay == 0 {
		return 0
	}
	return time.Duration(l.latency.at(now, 1/float32(decay)))
}

// Flags are the reasons not to use the endpoint.
func (l *Load) Flags() Flag { return Flag(l.flags.Load()) }

// Available says that no flag is up.
func (l *Load) Available() bool { return l.flags.Load() == 0 }

// Raise gives a reason not to use the endpoint, and says whether it was available before: then another Set is due.
func (l *Load) Raise(f Flag) bool { return l.flags.Or(uint32(f)) == 0 }

// Clear takes a reason back, and says whether the endpoint became available by that: then its slow start begins at now, and
// another Set is due.
func (l *Load) Clear(f Flag, now int64) bool {
	if l.flags.Load()&uint32(f) == 0 {
		return false
	}
	l.since.Store(now) // first, so that nobody sees it available since long ago
	old := l.flags.And(^uint32(f))
	return old&uint32(f) != 0 && old&^uint32(f) == 0
}

// SetWeight puts a weight of 0..1000 in force instead of the configured one; -1 takes it back. Another Set is due.
func (l *Load) SetWeight(w int) {
	if w < -1 || w > MaxWeight {
		panic("BUG: lb: a weight out of range")
	}
	l.weight.Store(int32(w))
}

// Weight is the one set at run time; -1: the configured one is in force.
func (l *Load) Weight() int { return int(l.weight.Load()) }

// configure keeps or drops the latency, as the algorithm needs it. Without it End costs less.
func (l *Load) configure(s *Spec) {
	if s.Algorithm != PeakEWMA {
		l.decay.Store(0)
		return
	}
	l.penalty.Store(int64(s.Penalty))
	l.decay.Store(int64(s.Decay))
}

// weightOf is the weight of e that is in force.
func weightOf(e *Endpoint) int {
	if w := e.Load.weight.Load(); w >= 0 {
		return int(w)
	}
	return e.Weight
}
