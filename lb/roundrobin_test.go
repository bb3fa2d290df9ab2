package lb

import (
	"strings"
	"testing"
)

func endpoints(weights ...int) (es []*Endpoint) {
	for i, w := range weights {
		es = append(es, &Endpoint{Address: string(rune('a' + i)), Weight: w})
	}
	return es
}

func sequence(p Picker, n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(p.Pick(&Attempt{}).Address)
	}
	return b.String()
}

func TestRoundRobinIsSmooth(t *testing.T) {
	f := func(in []int, start int, want string) {
		t.Helper()
		if got := sequence(NewRoundRobin(endpoints(in...), start), len(want)); got != want {
			t.Errorf("%v from %d: got %s, want %s", in, start, got, want)
		}
	}
	f([]int{5, 1, 1}, 0, "aabacaaaabacaa")
	f([]int{5, 1, 1}, 2, "bacaaaabacaa")
	f([]int{1, 1, 1}, 0, "abcabc")
	f([]int{2, 2}, 1, "baba")
	f([]int{1, 3}, 0, "babbbabb")
}

func TestRoundRobinSharesByWeight(t *testing.T) {
	es := endpoints(7, 2, 1)
	p, counts := NewRoundRobin(es, 0), map[*Endpoint]int{}
	for range 1000 {
		counts[p.Pick(&Attempt{})]++
	}
	for _, e := range es {
		if counts[e] != e.Weight*100 {
			t.Errorf("%s: got %d of 1000, want %d", e.Address, counts[e], e.Weight*100)
		}
	}
}

func TestPickAvoidsTheTried(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1}, {3, 2, 1}} {
		var a Attempt
		p, seen := NewRoundRobin(endpoints(weights...), 0), map[*Endpoint]bool{}
		for range weights {
			e := p.Pick(&a)
			if e == nil || seen[e] {
				t.Fatalf("%v: picked %v a second time", weights, e)
			}
			seen[e] = true
			a.Tried(e)
		}
		if e := p.Pick(&a); e != nil {
			t.Errorf("%v: all tried, yet picked %s", weights, e.Address)
		}
	}
	if e := NewRoundRobin(nil, 3).Pick(&Attempt{}); e != nil {
		t.Errorf("no endpoints, yet picked %v", e)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	p := NewRoundRobin(endpoints(3, 2, 1, 1), 0)
	var a Attempt
	if n := testing.AllocsPerRun(100, func() { p.Pick(&a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRoundRobin10(b *testing.B) {
	p := NewRoundRobin(endpoints(3, 2, 1, 1, 5, 1, 1, 2, 2, 1), 0)
	var a Attempt
	b.ReportAllocs()
	for b.Loop() {
		p.Pick(&a)
	}
}
