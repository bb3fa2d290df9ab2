package lb

import (
	"fmt"
	"strings"
	"testing"
)

// TestPrioritiesAndPanic is a table of healthy shares, in percent of a hundred endpoints of each priority, and of the traffic
// that each priority gets; ! is panic. Where Envoy's documentation has the case the numbers are its own, but for fractions.
func TestPrioritiesAndPanic(t *testing.T) {
	f := func(healthy, threshold, want string) {
		t.Helper()
		spec := Defaults(RoundRobin)
		fmt.Sscan(threshold, &spec.Panic)
		var es []*Endpoint
		for priority, field := range strings.Fields(healthy) {
			n := 0
			fmt.Sscan(field, &n)
			for i, e := range alike(100) {
				e.Priority = 10 * priority // gaps do not matter
				if i >= n {
					e.Load.Raise(FailedCheck)
				}
				es = append(es, e)
			}
		}
		s := NewSet(&spec, es, 0)
		traffic, sick := map[int]float64{}, map[int]bool{}
		for i := range s.Len() {
			e, share := s.Share(i)
			traffic[e.Priority] += share
			sick[e.Priority] = sick[e.Priority] || !e.Load.Available()
		}
		var got []string
		anywhere := false
		for priority := range strings.Fields(healthy) {
			field := fmt.Sprintf("%.1f", 100*traffic[10*priority])
			if sick[10*priority] {
				field += "!"
				anywhere = true
			}
			got = append(got, field)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("healthy %s, threshold %s: got %s, want %s", healthy, threshold, got, want)
		}
		if s.Panic() != anywhere {
			t.Errorf("healthy %s, threshold %s: Panic() is %v", healthy, threshold, s.Panic())
		}
	}
	// Spill-over to a healthy priority.
	f("100 100", "0.5", "100.0 0.0")
	f("72 100", "0.5", "100.0 0.0")
	f("71 100", "0.5", "99.4 0.6")
	f("50 100", "0.5", "70.0 30.0")
	f("25 100", "0.5", "35.0 65.0")
	f("0 100", "0.5", "0.0 100.0")
	// The next one is not whole either.
	f("50 60", "0.5", "70.0 30.0")
	f("25 65", "0.5", "35.0 65.0")
	f("71 71 100", "0.5", "99.4 0.6 0.0")
	f("50 50 100", "0.5", "70.0 30.0 0.0")
	f("25 100 100", "0.5", "35.0 65.0 0.0")
	f("25 25 100", "0.5", "35.0 35.0 30.0")
	// All together are not whole: what there is is scaled up, and those below the threshold panic.
	f("5 65", "0.5", "7.1! 92.9")
	f("60 5", "0.5", "92.3 7.7!")
	f("25 25", "0.5", "50.0! 50.0!")
	f("40", "0.5", "100.0!")
	f("60", "0.5", "100.0")
	f("0 60", "0.5", "0.0 100.0")
	f("0 0", "0.5", "50.0! 50.0!")
	f("0 0", "0", "0.0 0.0")
	f("5 65", "0", "7.1 92.9")
	f("25 25", "0", "50.0 50.0")
	f("99", "1", "100.0")
	f("70", "1", "100.0!")
}

// Panic does not reach for those that are out on purpose or wait for their first check, and they do not count as unhealthy.
func TestPanicRespectsOperators(t *testing.T) {
	spec, es := Defaults(RoundRobin), alike(10)
	for _, e := range es[:3] {
		e.Load.Raise(Draining)
	}
	for _, e := range es[3:6] {
		e.Load.Raise(Unchecked)
	}
	es[6].Load.Raise(Disabled)
	es[7].Load.SetWeight(0)
	if s := NewSet(&spec, es, 0); s.Len() != 2 || s.Panic() {
		t.Fatalf("%d endpoints, panic %v; want the 2 that are left, and none", s.Len(), s.Panic())
	}
	es[8].Load.Raise(Ejected)
	es[9].Load.Raise(FailedCheck)
	s := NewSet(&spec, es, 0)
	if s.Len() != 2 || !s.Panic() {
		t.Fatalf("%d endpoints, panic %v; want 2 in panic", s.Len(), s.Panic())
	}
	for i := range s.Len() {
		if e, _ := s.Share(i); e != es[8] && e != es[9] {
			t.Errorf("%s is used", e.Address)
		}
	}
}

// What a picker may give is told: those that have a share, then the reserve, nearest first.
func TestUsable(t *testing.T) {
	now := int64(0)
	var all []*Endpoint
	for i, priority := range []int{2, 1, 0, 0, 0, 0} {
		all = append(all, &Endpoint{Address: string(rune('a' + i)), Weight: 1, Priority: priority, Load: NewLoad(now)})
	}
	all[3].Load.Raise(Draining)
	all[4].Load.SetWeight(0)
	all[5].Load.Raise(Ejected)
	if all[4].Load.Weight() != 0 || all[3].Load.Weight() != -1 {
		t.Error("the weight of run time is not told")
	}
	spec := Defaults(RoundRobin)
	spec.Overprovide = 10
	got := ""
	for _, e := range NewSet(&spec, all, now).Usable() {
		got += e.Address
	}
	if got != "cba" {
		t.Errorf("got %q", got)
	}
}
