package lb

import (
	"math"
	"math/rand/v2"
	"testing"
)

// However popular a key is, no endpoint has more in flight than the load factor times its share, while requests begin and end
// on one loop; without the bound one would have nearly all. With fewer than 8 endpoints this is exact, with more the count
// is as old as an eighth of them in picks, during which others end.
func TestBoundHolds(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev} {
		for _, weights := range [][]int{{1, 1, 1, 1, 1, 1}, {4, 1, 1, 2, 8}, make([]int, 100)} {
			for _, factor := range []float64{1.1, 1.25, 2} {
				es := pool(weights...)
				for _, e := range es {
					e.Weight = max(e.Weight, 1)
				}
				spec := Defaults(algorithm)
				spec.LoadFactor = factor
				s := NewSet(&spec, es, 0)
				p, r := NewPicker(s, 1, nil), rand.New(rand.NewPCG(1, 2))
				var open []*Endpoint
				most := 0
				for step := range 20_000 {
					if len(open) > 0 && (r.IntN(2) == 0 || len(open) > 500) {
						i := r.IntN(len(open))
						open[i].Load.End(0, 0, false)
						open[i] = open[len(open)-1]
						open = open[:len(open)-1]
						continue
					}
					key := r.Uint64N(3) // three keys, one of them hot
					if r.IntN(4) > 0 {
						key = 0
					}
					e := p.Pick(&Attempt{Key: mix(key), Keyed: true})
					e.Load.Begin()
					open = append(open, e)
					_, share := shareOf(s, e)
					counted := float64(len(open) + s.Len()/8*4)
					if n := e.Load.InFlight(); n > 1 && float64(n) > math.Ceil(factor*counted*share+1e-9) {
						t.Fatalf("%v, %d endpoints, factor %v, step %d: %s has %d of %d in flight",
							algorithm, len(es), factor, step, e.Address, n, len(open))
					}
					most = max(most, e.Load.InFlight())
				}
				if most < 5 && len(es) < 100 {
					t.Errorf("%v: no endpoint had more than %d in flight: nothing was tested", algorithm, most)
				}
			}
		}
	}
}

// A key stays with its endpoint as long as the bound lets it, spills over when it does not, and comes back.
func TestBoundSpillsInOrder(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev} {
		spec := Defaults(algorithm)
		spec.LoadFactor = 1.25
		es := alike(5)
		p, a := NewPicker(NewSet(&spec, es, 0), 1, nil), Attempt{Key: 42, Keyed: true}
		home := p.Pick(&a)
		b := a
		b.Tried(home)
		second := p.Pick(&b)
		for _, e := range es {
			for range 10 {
				e.Load.Begin()
			}
		}
		for range 4 { // 13 of 51 times 1.25 and 1/5
			if e := p.Pick(&a); e != home && home.Load.InFlight() < 13 {
				t.Fatalf("%v: left with %d in flight at home", algorithm, home.Load.InFlight())
			}
			home.Load.Begin()
		}
		if e := p.Pick(&a); e != second {
			t.Errorf("%v: spilled to %s, want %s", algorithm, e.Address, second.Address)
		}
		for range 14 {
			home.Load.End(0, 0, false)
		}
		if e := p.Pick(&a); e != home {
			t.Errorf("%v: did not come back but to %s", algorithm, e.Address)
		}
	}
}

// A whole share is a bound like any other: with a factor of 2 and four endpoints none has 3 of 4.
func TestBoundIsExact(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev} {
		spec, es := Defaults(algorithm), alike(4)
		spec.LoadFactor = 2
		p, a := NewPicker(NewSet(&spec, es, 0), 1, nil), Attempt{Key: 4, Keyed: true}
		home := p.Pick(&a)
		busy(home, 2)
		for _, e := range es {
			if e != home {
				busy(e, 1)
				break
			}
		}
		if e := p.Pick(&a); e == home {
			t.Errorf("%v: 3 of 4 are to be at one endpoint", algorithm)
		}
	}
}

// When all have what they may have, for others count at the same time, a request is placed all the same.
func TestBoundGivesWay(t *testing.T) {
	spec := Defaults(RingHash)
	spec.LoadFactor = 1.01
	es := alike(20)
	p := NewPicker(NewSet(&spec, es, 0), 1, nil)
	for range 3 {
		p.Pick(&Attempt{Key: 1, Keyed: true}) // the sum is taken: nothing is in flight
		for _, e := range es {
			e.Load.Begin()
			e.Load.Begin()
		}
		if e := p.Pick(&Attempt{Key: 1, Keyed: true}); e == nil {
			t.Fatal("nothing was picked")
		}
	}
}
