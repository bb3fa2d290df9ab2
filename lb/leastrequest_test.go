package lb

import (
	"math"
	"testing"
)

// busy lets n requests begin.
func busy(e *Endpoint, n int) {
	for range n {
		e.Load.Begin()
	}
}

// With unequal weights an endpoint gets by its weight divided by its requests in flight and one, to the power of the bias.
func TestLeastRequestByWeight(t *testing.T) {
	for _, bias := range []float64{0, 0.5, 1, 2} {
		spec, es := Defaults(LeastRequest), pool(8, 4, 4, 1)
		spec.Bias = bias
		busy(es[0], 3)
		busy(es[1], 1)
		p, counts, sum := NewPicker(NewSet(&spec, es, 0), 1, nil), map[*Endpoint]float64{}, 0.0
		for range 10_000 {
			counts[p.Pick(&Attempt{})]++
		}
		weight := func(e *Endpoint) float64 { return float64(e.Weight) / math.Pow(float64(e.Load.InFlight()+1), bias) }
		for _, e := range es {
			sum += weight(e)
		}
		for _, e := range es {
			if want := 10_000 * weight(e) / sum; math.Abs(counts[e]-want) > 3 {
				t.Errorf("bias %v: weight %d with %d in flight got %v, want %.0f", bias, e.Weight, e.Load.InFlight(), counts[e], want)
			}
		}
	}
}

// Of two that are drawn the less busy one is taken: the busiest of all never, the idlest in 2 of n draws.
func TestLeastRequestOfTwo(t *testing.T) {
	const n, picks = 8, 40_000
	spec, es := Defaults(LeastRequest), alike(n)
	for i, e := range es {
		busy(e, i)
	}
	p, counts := NewPicker(NewSet(&spec, es, 0), 1, nil), map[*Endpoint]int{}
	for range picks {
		counts[p.Pick(&Attempt{})]++
	}
	chi := 0.0
	for i, e := range es {
		want := picks * float64(n-1-i) * 2 / (n * (n - 1))
		if want == 0 {
			if counts[e] > 0 {
				t.Errorf("the busiest was picked %d times", counts[e])
			}
			continue
		}
		chi += (float64(counts[e]) - want) * (float64(counts[e]) - want) / want
	}
	if chi > critical(n-2) {
		t.Errorf("chi-square %.1f", chi)
	}
}

func TestLeastRequestFullScan(t *testing.T) {
	spec, es := Defaults(LeastRequest), pool(1, 2, 4, 2)
	spec.FullScan = true
	busy(es[0], 2)
	busy(es[1], 3) // 1.5 for its weight
	busy(es[2], 5) // 1.25
	busy(es[3], 3)
	p := NewPicker(NewSet(&spec, es, 0), 1, nil)
	if e := p.Pick(&Attempt{}); e != es[2] {
		t.Errorf("got %s", e.Address)
	}
	var a Attempt
	a.Tried(es[2])
	seen := map[*Endpoint]int{}
	for range 100 {
		seen[p.Pick(&a)]++
	}
	if len(seen) != 2 || seen[es[1]] < 25 || seen[es[3]] < 25 {
		t.Errorf("two are level, they got %d and %d of 100", seen[es[1]], seen[es[3]])
	}
}

// Latency and requests in flight both count, and who has not answered yet gets one request.
func TestPeakEWMAExpectsTheShortestWait(t *testing.T) {
	f := func(latency, inFlight [2]int64, want int) {
		t.Helper()
		spec, es := Defaults(PeakEWMA), alike(2)
		s := NewSet(&spec, es, 0)
		for i, e := range es {
			if latency[i] > 0 {
				e.Load.Begin()
				e.Load.End(second, latency[i]*1e6, false)
			}
			busy(e, int(inFlight[i]))
		}
		p := NewPicker(s, 1, nil)
		for range 20 {
			if e := p.Pick(&Attempt{Now: second}); e != es[want] {
				t.Fatalf("latencies %v, in flight %v: got %s", latency, inFlight, e.Address)
			}
		}
	}
	f([2]int64{10, 20}, [2]int64{0, 0}, 0)
	f([2]int64{10, 20}, [2]int64{2, 0}, 1)
	f([2]int64{10, 35}, [2]int64{2, 0}, 0)
	f([2]int64{10, 0}, [2]int64{0, 0}, 1)
	f([2]int64{1000, 0}, [2]int64{50, 1}, 0)
}
