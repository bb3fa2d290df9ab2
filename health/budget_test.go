package health

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// A retry is allowed exactly while fewer than the share, and fewer than the floor, are under way.
func TestBudgetBound(t *testing.T) {
	f := func(percent float64, floor, active, want int) {
		t.Helper()
		b, err := NewBudget(BudgetSpec{percent, floor}, 3)
		if err != nil {
			t.Fatal(err)
		}
		for i := range active {
			b.Begin(i % 3)
		}
		got := 0
		for b.Retry() {
			got++
		}
		if got != want || b.Retries() != int64(want) {
			t.Errorf("%v %%, floor %d, %d active: %d retries, want %d", percent, floor, active, got, want)
		}
		if want > 0 {
			b.EndRetry()
			if !b.Retry() || b.Retry() {
				t.Error("the end of a retry makes room for one")
			}
		}
		for i := range active {
			b.End(i % 3)
		}
		if b.Active() != 0 {
			t.Errorf("%d are active at the end", b.Active())
		}
	}
	f(20, 3, 0, 3)
	f(20, 3, 15, 3)
	f(20, 3, 19, 3)
	f(20, 3, 20, 4)
	f(20, 3, 1000, 200)
	f(0, 0, 1000, 0)
	f(100, 0, 10, 10)
	f(0.5, 0, 199, 0)
	f(0.5, 0, 200, 1)
}

// Loops that begin, retry and end at once leave nothing behind, and never have more retries than the most that could be
// active allow.
func TestBudgetAtOnce(t *testing.T) {
	const loops, each = 4, 50
	b, _ := NewBudget(BudgetSpec{Percent: 10, Floor: 2}, loops)
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(loop)))
			active, retries := 0, 0
			for range 20_000 {
				switch n := r.IntN(4); {
				case n == 0 && active < each:
					b.Begin(loop)
					active++
				case n == 1 && active > 0:
					b.End(loop)
					active--
				case n == 2 && b.Retry():
					retries++
					if most := int64(loops * each / 10); b.Retries() > most {
						t.Errorf("%d retries, at most %d may be", b.Retries(), most)
					}
				case n == 3 && retries > 0:
					b.EndRetry()
					retries--
				}
			}
			for range active {
				b.End(loop)
			}
			for range retries {
				b.EndRetry()
			}
		})
	}
	wg.Wait()
	if b.Active() != 0 || b.Retries() != 0 {
		t.Errorf("%d active and %d retries are left", b.Active(), b.Retries())
	}
}

// The last retry that is allowed goes to one of two who ask at once.
func TestBudgetLastRetry(t *testing.T) {
	b, _ := NewBudget(BudgetSpec{Floor: 1}, 1)
	var granted atomic.Int64
	duel(50_000, func(int) {
		if b.Retry() {
			granted.Add(1)
		}
	}, func(round int) {
		if granted.Swap(0) != 1 || b.Retries() != 1 {
			t.Fatalf("round %d: %d retries", round, b.Retries())
		}
		b.EndRetry()
	})
}
