// Package lb chooses the endpoint of a pool that gets the next attempt. It knows no message and no socket.
//
// A Picker belongs to one event loop: it needs no lock. The Endpoints behind it are shared by the pickers of all loops and
// immutable, so that a picker can be replaced whole when names resolve anew or weights change.
package lb

// Endpoint is one address of a pool. It is immutable and lives as long as a picker or an exchange points to it.
type Endpoint struct {
	Address string // host:port with the address resolved, or unix:/path
	Name    string // as configured, for logs and metrics
	Weight  int    // 1..1000
	Metric  int    // index of its counters
	State   any    // what the pool's owner keeps of it; opaque here
}

// MaxTried bounds the endpoints that one exchange can try.
const MaxTried = 4

// Attempt is one exchange's way through the endpoints: what it is bound to, and what it has tried.
type Attempt struct {
	tried [MaxTried]*Endpoint
	count int
}

// Tried notes that e failed this exchange: Pick avoids it as long as there is another. Past MaxTried the oldest is
// forgotten.
func (a *Attempt) Tried(e *Endpoint) {
	a.tried[a.count%MaxTried] = e
	a.count++
}

// Count is the number of endpoints noted.
func (a *Attempt) Count() int { return a.count }

func (a *Attempt) has(e *Endpoint) bool {
	for _, t := range a.tried {
		if t == e {
			return true
		}
	}
	return false
}

// Picker chooses an endpoint that the attempt has not tried, nil when there is none.
type Picker interface {
	Pick(a *Attempt) *Endpoint
}
