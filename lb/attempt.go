package lb

// MaxTried bounds the endpoints that one exchange can try.
const MaxTried = 4

// Attempt is one exchange's way through the endpoints: what it is bound to, and what it has tried. It is a value of fixed
// size: a copy of it can look ahead without consequence.
type Attempt struct {
	Key   uint64 // affinity key, a hash: ring_hash, maglev and source_ip send the same key to the same endpoint
	Keyed bool   // there is a key; without one these choose at random
	Now   int64  // nanoseconds on the clock of Load.End; peak_ewma alone needs it
	tried [MaxTried]*Endpoint
	count int
}

// Tried notes that e failed this exchange: Pick avoids it as long as there is another. Past MaxTried the oldest is
// forgotten.
func (a *Attempt) Tried(e *Endpoint) {
	a.tried[a.count%MaxTried] = e
	a.count++
}

// Forget makes a like one that has tried nothing; its key stays.
func (a *Attempt) Forget() { a.tried, a.count = [MaxTried]*Endpoint{}, 0 }

// Count is the number of endpoints noted.
func (a *Attempt) Count() int { return a.count }

// Has says whether e was tried. It goes by the load where there is one: the same address may meanwhile be another Endpoint.
func (a *Attempt) Has(e *Endpoint) bool {
	for _, t := range a.tried {
		if t == e || t != nil && t.Load != nil && t.Load == e.Load {
			return true
		}
	}
	return false
}
