package lb

import (
	"fmt"
	"testing"
)

// pool are endpoints with loads that are available since the beginning of time.
func pool(weights ...int) (es []*Endpoint) {
	for i, w := range weights {
		es = append(es, &Endpoint{Address: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250), Weight: w, Load: NewLoad(0)})
	}
	return es
}

// alike are n endpoints of weight 1.
func alike(n int) []*Endpoint {
	es := pool(make([]int, n)...)
	for _, e := range es {
		e.Weight = 1
	}
	return es
}

// shareOf is the share of e in s, 0 and false if it has none.
func shareOf(s *Set, e *Endpoint) (bool, float64) {
	for i := range s.Len() {
		if at, share := s.Share(i); at == e {
			return true, share
		}
	}
	return false, 0
}

// everyAlgorithm runs f for each, with the variants that pick differently.
func everyAlgorithm(t *testing.T, f func(t *testing.T, spec Spec)) {
	run := func(name string, spec Spec) {
		t.Run(name, func(t *testing.T) {
			t.Helper()
			if err := spec.Check(); err != nil {
				t.Fatal(err)
			}
			f(t, spec)
		})
	}
	for a := range Algorithm(len(algorithms)) {
		run(a.String(), Defaults(a))
		if a.Hashing() {
			bounded := Defaults(a)
			bounded.LoadFactor = 1.25
			run(a.String()+" bounded", bounded)
		}
	}
	scan, four := Defaults(LeastRequest), Defaults(LeastRequest)
	scan.FullScan, four.Choices = true, 4
	run("least_request full scan", scan)
	run("least_request four choices", four)
}

func TestAlgorithmNames(t *testing.T) {
	for a := range Algorithm(len(algorithms)) {
		if got, ok := ParseAlgorithm(a.String()); !ok || got != a {
			t.Errorf("%v: got %v, %v", a, got, ok)
		}
	}
	if a, ok := ParseAlgorithm("leastconn"); ok {
		t.Errorf("leastconn is %v", a)
	}
}

func TestSpecIsChecked(t *testing.T) {
	f := func(change func(s *Spec), want string) {
		t.Helper()
		s := Defaults(RoundRobin)
		change(&s)
		got := ""
		if err := s.Check(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(func(s *Spec) {}, "")
	f(func(s *Spec) { s.Choices = 1 }, "cannot balance: choices 1 is not within 2 and 16")
	f(func(s *Spec) { s.LoadFactor = 1 }, "cannot balance: load factor 1 is not within 1.01 and 100")
	f(func(s *Spec) { s.SlowStart.Aggression = 0 }, "cannot balance: slow start aggression 0 is not within 0.01 and 100")
	f(func(s *Spec) { s.Panic = 50 }, "cannot balance: panic threshold 50 is not within 0 and 1")
	zero := 0.0
	f(func(s *Spec) { s.Bias = zero / zero }, "cannot balance: bias NaN is not within 0 and 8")
}
