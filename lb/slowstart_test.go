package lb

import (
	"math"
	"testing"
	"time"
)

func TestSlowStartCurve(t *testing.T) {
	f := func(aggression, minimum, age, want float64) {
		t.Helper()
		s := SlowStart{Window: time.Minute, Aggression: aggression, Minimum: minimum}
		if got := s.factor(int64(age * float64(time.Second))); math.Abs(got-want) > 1e-9 {
			t.Errorf("aggression %v, minimum %v, after %vs: got %v, want %v", aggression, minimum, age, got, want)
		}
	}
	f(1, 0.1, 0, 0.1)
	f(1, 0.1, 3, 0.1)
	f(1, 0.1, 15, 0.25)
	f(1, 0.1, 30, 0.5)
	f(1, 0.1, 59.999, 59.999/60)
	f(1, 0.1, 60, 1)
	f(1, 0.1, 3600, 1)
	f(1, 0.1, -5, 0.1) // another clock
	f(2, 0.1, 15, 0.5) // the square root: faster at first
	f(0.5, 0.1, 30, 0.25)
	f(0.5, 0.4, 30, 0.4)
	if f := (&SlowStart{Aggression: 1, Minimum: 0.1}).factor(0); f != 1 {
		t.Errorf("without a window: %v", f)
	}
}

// An endpoint that comes back gets its weight step by step; Due says when each is.
func TestSlowStartOfASet(t *testing.T) {
	spec, es := Defaults(LeastRequest), alike(3)
	spec.SlowStart.Window = 32 * time.Second
	now := int64(time.Hour)
	if due := NewSet(&spec, es, now).Due(); due != 0 {
		t.Errorf("all are old: due is %d", due)
	}
	es[1].Load.Raise(FailedCheck | Ejected)
	if es[1].Load.Clear(FailedCheck, now-1e9) {
		t.Error("available while a flag is up")
	}
	if !es[1].Load.Clear(Ejected, now) || es[1].Load.Clear(Ejected, now+1e9) {
		t.Error("it became available once, by the second flag")
	}
	for steps, last := 0, 0.0; ; steps++ {
		s := NewSet(&spec, es, now)
		_, share := shareOf(s, es[1])
		age := float64(now-int64(time.Hour)) / 32e9
		factor := max(0.1, min(1, age))
		if want := factor / (2 + factor); math.Abs(share-want) > 1e-9 || share < last {
			t.Fatalf("step %d: share %v, want %v, before %v", steps, share, want, last)
		}
		last = share
		if s.Due() == 0 {
			if steps != slowSteps {
				t.Errorf("%d steps, want %d", steps, slowSteps)
			}
			break
		}
		if s.Due() <= now {
			t.Fatalf("step %d: due at %d, now is %d", steps, s.Due(), now)
		}
		now = s.Due()
	}
}

// Keys do not move with a slow start.
func TestSlowStartIsNotForHashing(t *testing.T) {
	spec, es := Defaults(Maglev), alike(3)
	spec.SlowStart.Window = time.Minute
	es[1].Load = NewLoad(int64(time.Hour))
	s := NewSet(&spec, es, int64(time.Hour))
	if _, share := shareOf(s, es[1]); share != 1.0/3 || s.Due() != 0 {
		t.Errorf("share %v, due %d", share, s.Due())
	}
}
