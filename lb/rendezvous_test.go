package lb

import (
	"fmt"
	"math"
	"testing"
)

// Names get keys by their weights. When a weight changes, keys move to or from that name alone, and only as many as must.
func TestRendezvous(t *testing.T) {
	const keys = 200_000
	names := []string{"a", "b", "c", "d"}
	pick := func(weights ...int) (owners []int, share [4]float64) {
		r := NewRendezvous(names, weights)
		for k := range keys {
			i := r.Pick(HashString(fmt.Sprint("key", k)))
			owners = append(owners, i)
			share[i] += 1.0 / keys
		}
		return owners, share
	}
	near := func(got, want float64) bool { return math.Abs(got-want) < 0.005 }
	before, share := pick(90, 10, 0, 0)
	if !near(share[0], 0.9) || !near(share[1], 0.1) || share[2]+share[3] != 0 {
		t.Errorf("90:10 became %v", share)
	}
	after, share := pick(90, 30, 0, 0)
	moved := 0
	for i := range before {
		if before[i] != after[i] {
			if moved++; after[i] != 1 {
				t.Fatalf("key %d went from %d to %d, although only b's weight has grown", i, before[i], after[i])
			}
		}
	}
	if !near(share[1], 0.25) || !near(float64(moved)/keys, 0.15) {
		t.Errorf("90:30 became %v, and %d of %d keys moved", share, moved, keys)
	}
	if _, share = pick(1, 2, 3, 4); !near(share[0], 0.1) || !near(share[1], 0.2) || !near(share[2], 0.3) || !near(share[3], 0.4) {
		t.Errorf("1:2:3:4 became %v", share)
	}
	if i := NewRendezvous(names, []int{0, 0, 0, 0}).Pick(1); i != -1 {
		t.Errorf("%d of weight 0 was chosen", i)
	}
}

// A key's lot is even, and its lots by two seeds have nothing to do with each other.
func TestLot(t *testing.T) {
	const keys = 100_000
	var low, both float64
	for k := range uint64(keys) {
		a, b := Lot(k, 1), Lot(k, 2)
		if a < 0 || a >= 1 {
			t.Fatal(a)
		}
		if a < 0.1 {
			low++
			if b < 0.1 {
				both++
			}
		}
	}
	if math.Abs(low/keys-0.1) > 0.005 || math.Abs(both/keys-0.01) > 0.002 {
		t.Errorf("%v of %d below 0.1, %v by both seeds", low, keys, both)
	}
}

func BenchmarkRendezvous(b *testing.B) {
	r := NewRendezvous([]string{"a", "b"}, []int{90, 10})
	for i := range b.N {
		_ = r.Pick(uint64(i))
	}
}
