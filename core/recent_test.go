package core

import (
	"fmt"
	"testing"
)

// TestRecentIsBounded puts in more than is kept, and uses one entry all the time, which stays.
func TestRecentIsBounded(t *testing.T) {
	for _, most := range []int{0, 100} {
		r := Recent[int]{Most: most}
		r.Put("used", 1, 0)
		size := func(m map[string]recent[int]) (n int) {
			for key := range m {
				n += len(key) + recentEntry
			}
			return n
		}
		for i := range 20_000 {
			r.Put(fmt.Sprintf("%0800d", i), i, 0)
			if _, ok := r.Find([]byte("used")); i%50 == 0 && !ok {
				t.Fatalf("most %d: what is used is gone after %d others", most, i)
			}
		}
		if young, old := size(r.young), size(r.old); young > RecentBytes || old > RecentBytes || most == 0 && young+old < RecentBytes {
			t.Errorf("most %d: %d bytes are young, %d old", most, young, old)
		}
		if most > 0 && (len(r.young) > most || len(r.old) > most) {
			t.Errorf("most %d: %d are young, %d old", most, len(r.young), len(r.old))
		}
	}
}

func TestRecent(t *testing.T) {
	var r Recent[int]
	f := func(key string, want int, known bool) {
		t.Helper()
		if v, ok := r.Find([]byte(key)); v != want || ok != known {
			t.Errorf("%q: %d %v", key, v, ok)
		}
	}
	f("a", 0, false)
	r.Put("a", 1, 10)
	f("a", 1, true)
	f("aa", 0, false)
	f("", 0, false)
	r.Put("a", 2, 20)
	f("a", 2, true)
	if want := 1 + 20 + recentEntry; r.bytes != want || r.Len() != 1 {
		t.Errorf("%d bytes, %d entries", r.bytes, r.Len())
	}
	key := []byte("a")
	if n := testing.AllocsPerRun(100, func() { r.Find(key) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	r.Clear()
	f("a", 0, false)
}
