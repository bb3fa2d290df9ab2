package limits

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// checkTop proves the bounds of the sketch against the true counts.
func checkTop(t *testing.T, top *Top, truth map[int]uint64, counters int) {
	t.Helper()
	total := uint64(0)
	for _, n := range truth {
		total += n
	}
	if top.Total() != total {
		t.Fatalf("total %d, want %d", top.Total(), total)
	}
	known := map[Key]TopKey{}
	last := ^uint64(0)
	for _, k := range top.Keys() {
		known[k.Key] = k
		if k.Count > last {
			t.Fatal("not in order")
		}
		last = k.Count
		if k.Error > total/uint64(counters) {
			t.Fatalf("error %d of %d with %d counters", k.Error, total, counters)
		}
	}
	for n, count := range truth {
		k, ok := known[Key{uint64(n), 1}]
		if !ok && count > total/uint64(counters) {
			t.Fatalf("key %d, refused %d times of %d, is not known", n, count, total)
		}
		if ok && (k.Count < count || k.Count-k.Error > count || k.Label != fmt.Sprint("client ", n)) {
			t.Fatalf("key %d was refused %d times: %+v", n, count, k)
		}
	}
}

func TestTop(t *testing.T) {
	for seed := range uint64(20) {
		r, counters := rand.New(rand.NewPCG(seed, 1)), 8+int(seed)
		var tops [3]*Top
		var truths [3]map[int]uint64
		all, _ := NewTop(counters)
		merged := map[int]uint64{}
		for i := range tops {
			tops[i], _ = NewTop(counters)
			truths[i] = map[int]uint64{}
			for range 3000 * i { // the first loop has seen nothing
				n := int(r.ExpFloat64()*5) * (1 + r.IntN(3))
				if i == 2 { // who comes here is rare there
					n = max(0, 40-n)
				}
				tops[i].Add(Key{uint64(n), 1}, fmt.Append(nil, "client ", n))
				truths[i][n]++
				merged[n]++
			}
			checkTop(t, tops[i], truths[i], counters)
		}
		for i := range tops {
			all.Merge(tops[i])
		}
		checkTop(t, all, merged, counters)
		all.Reset()
		checkTop(t, all, nil, counters)
	}
}

func TestTopLabels(t *testing.T) {
	top, err := NewTop(1)
	if err != nil {
		t.Fatal(err)
	}
	top.Add(Key{1, 1}, []byte(strings.Repeat("x", 1000)))
	top.Add(Key{2, 2}, nil)
	top.Add(Key{3, 3}, []byte("short"))
	if k := top.Keys(); len(k) != 1 || k[0].Label != "short" || k[0].Count != 3 || k[0].Error != 2 {
		t.Fatalf("%+v", k)
	}
	for _, n := range []int{0, -1, MaxTop + 1} {
		if _, err := NewTop(n); err == nil {
			t.Fatalf("a sketch of %d keys was made", n)
		}
	}
}
