package core

import (
	"testing"
	"time"
)

// Each step waits for the client, and then gets bytes from it.
func TestPace(t *testing.T) {
	type step struct {
		waited time.Duration
		bytes  int64
	}
	repeat := func(n int, s step) (all []step) {
		for range n {
			all = append(all, s)
		}
		return all
	}
	r := MinRate{Receive: 100, Grace: 5 * time.Second}
	for _, test := range []struct {
		name  string
		steps []step
		left  time.Duration // before the next wait
	}{
		{"at first there is the grace", nil, 5 * time.Second},
		{"a wait costs what it lasts", []step{{2 * time.Second, 0}}, 3 * time.Second},
		{"bytes give time back", []step{{2 * time.Second, 50}}, 3*time.Second + 500*time.Millisecond},
		{"not more than the grace", []step{{2 * time.Second, 1 << 20}}, 5 * time.Second},
		{"at the rate it goes on for ever", repeat(10_000, step{time.Second, 100}), 5 * time.Second},
		{"a byte now and then is too slow", repeat(5, step{time.Second, 1}), 50 * time.Millisecond},
		{"nothing is left", repeat(6, step{time.Second, 1}), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := r.NewPace(r.Receive)
			for _, s := range test.steps {
				p.Moved(s.bytes, int64(s.waited))
			}
			if got := time.Duration(p.Timeout(0)); got != test.left {
				t.Errorf("%v are left, want %v", got, test.left)
			}
			if got := p.Timeout(int64(time.Millisecond)); got != min(int64(time.Millisecond), int64(test.left)) {
				t.Errorf("a shorter timeout became %v", time.Duration(got))
			}
		})
	}
	off := r.NewPace(r.Send)
	off.Moved(0, int64(time.Hour))
	if off.Bounded() || off.Timeout(0) != 0 || off.Timeout(7) != 7 {
		t.Error("without a rate there is a bound")
	}
}
