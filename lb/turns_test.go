package lb

import "testing"

// Passes wrap around after some millions of picks; the rotation must not notice.
func TestTurnsWrapAround(t *testing.T) {
	r := NewRoundRobin(lettered(3, 1), 0).(*rotation)
	for i := range r.turns.heap {
		r.turns.heap[i].pass += 1<<64 - 40*shortest
	}
	counts := map[string]int{}
	for range 400 {
		counts[r.Pick(&Attempt{}).Address]++
	}
	if counts["a"] != 300 {
		t.Errorf("got %v, want 300 and 100", counts)
	}
}

// The heap gives what a look at all passes would.
func TestTurnsAreInOrder(t *testing.T) {
	weights := make([]int, 57)
	for i := range weights {
		weights[i] = 1 + i*i%97
	}
	r := NewRoundRobin(lettered(weights...), 3).(*rotation)
	passes := make([]uint64, len(weights))
	for _, e := range r.turns.heap {
		passes[e.entry] = e.pass
	}
	for step := range 5000 {
		least := passes[0]
		for _, p := range passes {
			least = min(least, p)
		}
		place := r.turns.next(&Attempt{}, r.set.entries)
		if e := r.turns.heap[place]; e.pass != least || e.pass != passes[e.entry] {
			t.Fatalf("step %d: pass %d, the least is %d", step, e.pass, least)
		}
		e := r.turns.heap[place].entry
		r.turns.charge(place, 1)
		passes[e] += r.turns.strides[e]
	}
}
