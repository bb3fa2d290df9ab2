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
		for b.Retry(0) {
			got++
		}
		if got != want || b.Retries() != int64(want) {
			t.Errorf("%v %%, floor %d, %d active: %d retries, want %d", percent, floor, active, got, want)
		}
		if want > 0 {
			b.EndRetry()
			if !b.Retry(0) || b.Retry(0) {
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

// Many requests that fail in one instant are retried once each if there has been load before, whatever the share; after that it is the
// share again, until requests have paid the reserve anew.
func TestBudgetReserve(t *testing.T) {
	b, _ := NewBudget(BudgetSpec{Percent: 20, Floor: 3}, 1)
	granted := func() (n int) {
		for b.Retry(0) {
			n++
		}
		for range n {
			b.EndRetry()
		}
		return n
	}
	serve := func(n int) {
		for range n {
			b.End(0)
			b.Begin(0)
		}
	}
	for range 30 {
		b.Begin(0)
	}
	if got := granted(); got != 6 {
		t.Errorf("%d retries before there was any load, want 6", got)
	}
	serve(1000)
	if got := granted(); got != 30 {
		t.Errorf("%d retries at once, want one for each of 30 active requests", got)
	}
	if got := granted(); got != 6 {
		t.Errorf("%d retries with the reserve spent, want 6", got)
	}
	serve(75)
	if got := granted(); got != 15 {
		t.Errorf("%d retries after 75 requests, want 15", got)
	}
	serve(1000)
	for range 20 {
		b.End(0)
	}
	serve(1) // requests come and go in waves: a trough is not the end of the load
	if got := granted(); got < 29 {
		t.Errorf("%d retries after a trough, want 29 or 30", got)
	}
	serve(1000)
	if got := granted(); got != 10 {
		t.Errorf("%d retries with 10 active, want 10: what many have saved is not for few", got)
	}
}

// Where every request fails, and wants a retry that takes as long as itself, retries are the share of the requests in the long run: the
// reserve adds nothing to it.
func TestBudgetInTheLongRun(t *testing.T) {
	for _, percent := range []float64{0, 5, 20, 100} {
		b, _ := NewBudget(BudgetSpec{Percent: percent}, 1)
		const active, rounds = 50, 2000
		for range active {
			b.Begin(0)
		}
		retries := 0
		for range rounds { // one request after another ends and the next begins; a retry is under way for as many turns as there are active requests
			under := 0
			for range active {
				if b.Retry(0) {
					under++
				}
			}
			for range active {
				b.End(0)
				b.Begin(0)
			}
			for range under {
				b.EndRetry()
			}
			retries += under
		}
		if most := int(percent / 100 * active * (rounds + 2)); retries > most || retries < most*9/10 {
			t.Errorf("%v %%: %d retries of %d requests, want up to %d", percent, retries, active*rounds, most)
		}
	}
}

// Loops that begin, retry and end at once leave nothing behind, and never have more retries than requests that are active.
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
				case n == 2 && retries < active && b.Retry(loop):
					if retries++; b.Retries() > loops*each {
						t.Errorf("%d retries, at most %d may be", b.Retries(), loops*each)
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
	b, _ := NewBudget(BudgetSpec{Floor: 1}, 2)
	var granted atomic.Int64
	duel(50_000, func(loop int) {
		if b.Retry(loop) {
			granted.Add(1)
		}
	}, func(round int) {
		if granted.Swap(0) != 1 || b.Retries() != 1 {
			t.Fatalf("round %d: %d retries", round, b.Retries())
		}
		b.EndRetry()
	})
}
