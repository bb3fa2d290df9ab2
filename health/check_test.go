package health

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whatever the results, a state changes with the last of as many contrary ones in a row as its threshold says, the first pass
// apart.
func TestCheckThresholds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		spec := DefaultCheck()
		spec.Healthy, spec.Unhealthy, spec.InitiallyHealthy = 1+r.IntN(4), 1+r.IntN(4), r.IntN(2) == 0
		c, err := NewCheck(spec, 0)
		if err != nil {
			t.Fatal(err)
		}
		healthy, row, last := spec.InitiallyHealthy, 0, false
		for n := range 300 {
			passed := r.IntN(2) == 0
			if passed == last && n > 0 {
				row++
			} else {
				row, last = 1, passed
			}
			want := healthy
			switch {
			case n == 0 && passed, passed && row >= spec.Healthy:
				want = true
			case !passed && row >= spec.Unhealthy:
				want = false
			}
			if changed := c.Result(passed, int64(n)); changed != (want != healthy) || c.Healthy() != want || changed && c.Since() != int64(n) {
				t.Fatalf("%+v, result %d, %d in a row of %v: changed %v, healthy %v, want %v", spec, n, row, passed, changed, c.Healthy(), want)
			}
			healthy = want
		}
		if !c.Settled() {
			t.Fatal("not settled after 300 results")
		}
	}
}

func TestCheckReconfigure(t *testing.T) {
	c, _ := NewCheck(DefaultCheck(), 0)
	c.Result(false, 1)
	c.Result(false, 2)
	spec := DefaultCheck()
	spec.Unhealthy, spec.Interval, spec.JitterPercent, spec.StartInterval = 5, 20*time.Second, 25, 0
	if err := c.Reconfigure(spec); err != nil {
		t.Fatal(err)
	}
	if c.Interval() != 20*time.Second || c.Jitter() != 5*time.Second {
		t.Errorf("interval %v, jitter %v", c.Interval(), c.Jitter())
	}
	if c.Result(false, 3) || c.Result(false, 4) || !c.Result(false, 5) {
		t.Error("the new threshold of 5 failures, two of which were before, is not kept")
	}
}
