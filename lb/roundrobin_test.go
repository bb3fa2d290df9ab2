package lb

import (
	"strings"
	"testing"
)

// lettered are endpoints without loads, by the names a, b, c ...
func lettered(weights ...int) (es []*Endpoint) {
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
		if got := sequence(NewRoundRobin(lettered(in...), start), len(want)); got != want {
			t.Errorf("%v from %d: got %s, want %s", in, start, got, want)
		}
	}
	f([]int{1, 1, 1}, 0, "abcabc")
	f([]int{2, 2}, 1, "baba")
	f([]int{1, 0, 1}, 0, "acac")
	f([]int{1, 3}, 0, "bbabbbab")
	f([]int{5, 1, 1}, 2, "abaacaaabaacaa")
}

// The turns of a heavy endpoint are spread: between two of them there is hardly more than the mean.
func TestRoundRobinSpreadsTurns(t *testing.T) {
	weights := []int{50, 20, 20, 9, 1}
	for start := range 20 {
		s := sequence(NewRoundRobin(lettered(weights...), start), 1000)
		for i, w := range weights {
			turns := strings.Split(s, string(rune('a'+i)))
			if len(turns) < 3 {
				t.Fatalf("from %d: weight %d had %d of 1000 turns", start, w, len(turns)-1)
			}
			for _, gap := range turns[1 : len(turns)-1] {
				if most := 100/w + len(weights); len(gap) > most {
					t.Errorf("from %d: weight %d waited for %d of 100 turns, at most %d are fair", start, w, len(gap), most)
				}
			}
		}
	}
}

func TestRoundRobinSharesByWeight(t *testing.T) {
	for start := range 20 {
		es := lettered(700, 200, 97, 3)
		p, counts := NewRoundRobin(es, start), map[*Endpoint]int{}
		for range 10_000 {
			counts[p.Pick(&Attempt{})]++
		}
		for _, e := range es {
			if d := counts[e] - e.Weight*10; d < -1 || d > 1 {
				t.Errorf("from %d: %s: got %d of 10000, want %d", start, e.Address, counts[e], e.Weight*10)
			}
		}
	}
}

// A picker that replaces another goes on with the rotation, whatever became of the weights and the endpoints: were it to begin
// anew each time, the first would get everything.
func TestRoundRobinGoesOn(t *testing.T) {
	f := func(changed []int, algorithm Algorithm) {
		t.Helper()
		es := pool(1, 1, 1, 1, 1)
		spec := Defaults(algorithm)
		sets := []*Set{NewSet(&spec, es, 0)}
		for i, w := range changed {
			if w >= 0 {
				es[i].Load.SetWeight(w)
			}
		}
		sets = append(sets, NewSet(&spec, es, 0))
		var p Picker
		counts, n := map[*Endpoint]int{}, 0
		for range 500 {
			for _, s := range sets {
				p = NewPicker(s, uint64(n), p)
				for range 3 {
					counts[p.Pick(&Attempt{})]++
					n++
				}
			}
		}
		for i, e := range es {
			_, a := shareOf(sets[0], e)
			_, b := shareOf(sets[1], e)
			want := (a + b) / 2 * float64(n)
			if got := float64(counts[e]); got < want*0.75-2 || got > want*1.25+2 {
				t.Errorf("%v, %v: endpoint %d got %v of %d, want about %v", algorithm, changed, i, got, n, want)
			}
		}
	}
	f([]int{1, 1, 1, 1, 1}, RoundRobin)
	f([]int{1, 1, 1, 1, 0}, RoundRobin)
	f([]int{0, 1, 1, 1, 1}, RoundRobin)
	f([]int{2, 2, 2, 2, 1}, RoundRobin)
	f([]int{3, 1, 1, 1, 1}, RoundRobin)
}
