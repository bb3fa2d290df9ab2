package lb

import (
	"math"
	"math/rand/v2"
	"testing"
)

// randomPool is a pool in any state that may come about.
func randomPool(r *rand.Rand) []*Endpoint {
	es := alike(1 + r.IntN(12))
	same := r.IntN(2) == 0
	for _, e := range es {
		if !same {
			e.Weight = r.IntN(5) * r.IntN(250)
		}
		e.Priority = r.IntN(3) * r.IntN(2)
		e.Zone = []string{"a", "b", "c"}[r.IntN(3)]
		if r.IntN(3) == 0 {
			e.Load.Raise(1 << r.IntN(5))
		}
		if r.IntN(8) == 0 {
			e.Load.SetWeight(r.IntN(3))
		}
		for range r.IntN(20) {
			e.Load.Begin()
		}
	}
	return es
}

// Whatever the state of the pool: what is picked is none of those tried, drained, disabled or of weight 0, and unhealthy only
// in panic; and as long as one is available that was not tried, something is picked.
func TestPickKeepsItsPromise(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, spec Spec) {
		r := rand.New(rand.NewPCG(1, 2))
		rounds := 1500
		if spec.Algorithm.Hashing() { // whose tables take time
			rounds = 80
		}
		for range rounds {
			es := randomPool(r)
			spec := spec
			spec.Zone = []string{"", "a", "x"}[r.IntN(3)]
			spec.ZoneMinimum = 1 + r.IntN(4)
			spec.Panic = []float64{0, 0.5, 1}[r.IntN(3)]
			spec.SlowStart.Window = 1e9
			s := NewSet(&spec, es, r.Int64N(2e9))
			p := NewPicker(s, r.Uint64(), nil)
			a := Attempt{Key: r.Uint64(), Keyed: r.IntN(4) > 0, Now: 1e9}
			tried := map[*Endpoint]bool{}
			for range MaxTried {
				left := 0
				for _, e := range es {
					if e.Load.Available() && weightOf(e) > 0 && !tried[e] {
						left++
					}
				}
				e := p.Pick(&a)
				if e == nil {
					if left > 0 {
						t.Fatalf("nothing picked after %d, %d are left", a.Count(), left)
					}
					break
				}
				switch {
				case tried[e]:
					t.Fatalf("%s picked a second time", e.Address)
				case weightOf(e) == 0:
					t.Fatalf("%s picked, of weight 0", e.Address)
				case e.Load.Flags()&(Draining|Disabled|Unchecked) != 0:
					t.Fatalf("%s picked, with flags %b", e.Address, e.Load.Flags())
				case !e.Load.Available() && !s.Panic():
					t.Fatalf("%s picked, with flags %b and without panic", e.Address, e.Load.Flags())
				}
				tried[e] = true
				a.Tried(e)
			}
		}
	})
}

// The hashing algorithms try the same endpoints in the same order for the same key, on any loop of any gateway.
func TestHashedRetriesAreStable(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev, SourceIP} {
		spec := Defaults(algorithm)
		es := alike(20)
		other := alike(20)
		rand.New(rand.NewPCG(3, 4)).Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		p, q := NewPicker(NewSet(&spec, es, 0), 1, nil), NewPicker(NewSet(&spec, other, 0), 2, nil)
		seconds := map[string]int{}
		for key := range uint64(2000) {
			a, b := Attempt{Key: mix(key), Keyed: true}, Attempt{Key: mix(key), Keyed: true}
			first := ""
			for n := range MaxTried {
				e, f := p.Pick(&a), q.Pick(&b)
				if e.Address != f.Address {
					t.Fatalf("%v: key %d, attempt %d: %s and %s", algorithm, key, n, e.Address, f.Address)
				}
				a.Tried(e)
				b.Tried(f)
				switch {
				case n == 0:
					first = e.Address
				case n == 1 && first == es[0].Address:
					seconds[e.Address]++
				}
			}
		}
		if len(seconds) < 15 { // the load of one that fails is not all on its neighbour
			t.Errorf("%v: the keys of an endpoint that fails go to %d others only", algorithm, len(seconds))
		}
	}
}

// Without a key a hashing algorithm spreads.
func TestKeylessIsRandom(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev} {
		spec := Defaults(algorithm)
		p, seen := NewPicker(NewSet(&spec, alike(5), 0), 1, nil), map[*Endpoint]int{}
		for range 1000 {
			seen[p.Pick(&Attempt{})]++
		}
		for e, n := range seen {
			if n < 120 || n > 280 {
				t.Errorf("%v: %s got %d of 1000", algorithm, e.Address, n)
			}
		}
	}
}

// Retries leave for another zone or priority when those that have a share were all tried, the nearest first.
func TestRetriesGoToTheReserve(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, spec Spec) {
		es := alike(4)
		es[0].Zone, es[1].Zone = "here", "there"
		es[2].Priority, es[3].Priority = 1, 2
		es[1].Weight, es[0].Weight = 1, 3
		spec.Zone, spec.ZoneMinimum = "here", 1
		p := NewPicker(NewSet(&spec, es, 0), 9, nil)
		a := Attempt{Key: 77, Keyed: true}
		for i, want := range es {
			e := p.Pick(&a)
			if e != want {
				t.Fatalf("attempt %d: got %v, want %s", i, e, want.Address)
			}
			a.Tried(e)
		}
		if e := p.Pick(&a); e != nil {
			t.Errorf("all were tried, yet %s was picked", e.Address)
		}
	})
}

func TestEmptySetPicksNothing(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, spec Spec) {
		p := NewPicker(NewSet(&spec, nil, 0), 1, nil)
		if e := p.Pick(&Attempt{}); e != nil {
			t.Errorf("picked %v", e)
		}
	})
	if e := NewRoundRobin(nil, 3).Pick(&Attempt{}); e != nil {
		t.Errorf("no endpoints, yet picked %v", e)
	}
}

// A tried endpoint stays tried when a new configuration makes another Endpoint of the same address.
func TestTriedGoesByLoad(t *testing.T) {
	es := alike(2)
	again := *es[0]
	var a Attempt
	a.Tried(&again)
	p := NewRoundRobin(es, 0)
	for range 4 {
		if e := p.Pick(&a); e != es[1] {
			t.Fatalf("got %v, want %s", e, es[1].Address)
		}
	}
}

// critical is the chi-square that df degrees of freedom exceed with a chance of 1 in 1000 (Wilson and Hilferty).
func critical(df int) float64 {
	k := 2 / (9 * float64(df))
	return float64(df) * math.Pow(1-k+3.09*math.Sqrt(k), 3)
}

// What endpoints get is what their weights say, as a chi-square test judges it. Nothing is in flight.
func TestDistribution(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, spec Spec) {
		for _, weights := range [][]int{
			{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 3, 4, 5, 100, 7, 8, 9, 1}, {1000, 1}, {1000, 999, 998, 500},
		} {
			s := NewSet(&spec, pool(weights...), 0)
			shares := map[*Endpoint]float64{}
			for i := range s.Len() {
				e, share := s.Share(i)
				shares[e] = share
			}
			if s.spec.Algorithm.Hashing() {
				shares = keyShares(t, s, shares)
			}
			p, r := NewPicker(s, 5, nil), rand.New(rand.NewPCG(6, 7))
			const n = 100_000
			counts := map[*Endpoint]int{}
			for range n {
				counts[p.Pick(&Attempt{Key: r.Uint64(), Keyed: true})]++
			}
			chi := 0.0
			for e, share := range shares {
				d := float64(counts[e]) - share*n
				chi += d * d / (share * n)
			}
			if most := critical(len(weights) - 1); chi > most {
				t.Errorf("%v: chi-square %.1f, at most %.1f is chance", weights, chi, most)
			}
		}
	})
}

// keyShares are the parts of all keys that belong to each endpoint; they differ from what is meant by as much as the
// algorithm allows itself.
func keyShares(t *testing.T, s *Set, meant map[*Endpoint]float64) map[*Endpoint]float64 {
	t.Helper()
	have := map[*Endpoint]float64{}
	least, most, slack := 0.99, 1.01, 0.0001
	if s.spec.Algorithm == RingHash {
		least, most, slack = 0.6, 1.5, 0.01 // one of few points may be lucky
		for i, at := range s.ring.points {
			before := s.ring.points[(i+len(s.ring.points)-1)%len(s.ring.points)]
			have[s.entries[s.slots[i]].endpoint] += float64(at-before) * 0x1p-32
		}
	} else {
		for _, i := range s.slots {
			have[s.entries[i].endpoint] += 1.0 / tableSize
		}
	}
	for e, share := range meant {
		if d := have[e] - share; math.Abs(d) > slack && (have[e] < share*least || have[e] > share*most) {
			t.Errorf("%s has %.4f of all keys, meant is %.4f", e.Address, have[e], share)
		}
	}
	return have
}

func TestPickAllocatesNothing(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, spec Spec) {
		for _, weights := range [][]int{{1, 1, 1}, {3, 2, 1, 1}} {
			es := pool(weights...)
			p := NewPicker(NewSet(&spec, es, 0), 1, nil)
			a, b := Attempt{Key: 99, Keyed: true}, Attempt{}
			if n := testing.AllocsPerRun(100, func() {
				e := p.Pick(&a)
				e.Load.Begin()
				b = a
				b.Tried(e)
				p.Pick(&b)
				e.Load.End(1e9, 1e6, false)
			}); n != 0 {
				t.Errorf("%v: %v allocations", weights, n)
			}
		}
	})
}
