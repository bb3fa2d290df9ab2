package limits

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustConcurrency(t testing.TB, most uint32, term time.Duration) *Concurrency {
	t.Helper()
	c, err := NewConcurrency(most, term, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is in flight is exact as long as everybody releases within his term, over many terms.
func TestConcurrencyAgainstModel(t *testing.T) {
	type hold struct {
		ticket Ticket
		key    int
	}
	const most = 5
	c, r := mustConcurrency(t, most, time.Minute), rand.New(rand.NewPCG(1, 1))
	var holds []hold
	inFlight, refused := map[int]uint32{}, 0
	for now := int64(0); now < 3600*sec; now += r.Int64N(sec) {
		for i := 0; i < len(holds); { // nobody holds longer than a term
			if h := holds[i]; now-h.ticket.begun >= 59*sec || r.IntN(30) == 0 {
				c.Release(h.ticket, now)
				inFlight[h.key] -= h.ticket.cost
				holds = append(holds[:i], holds[i+1:]...)
				continue
			}
			i++
		}
		k, cost := r.IntN(10), uint32(1+r.IntN(2))
		ticket, d := c.Begin(key(k), cost, now)
		if want := inFlight[k]+cost <= most; d.Allowed != want {
			t.Fatalf("at %d: %d of %d in flight, %+v", now, inFlight[k], most, d)
		}
		if d.Allowed {
			inFlight[k] += cost
			holds = append(holds, hold{ticket, k})
		} else {
			refused++
		}
		if n := c.InFlight(key(k), now); n != inFlight[k] {
			t.Fatalf("%d in flight, want %d", n, inFlight[k])
		}
	}
	if refused < 100 {
		t.Fatalf("only %d were refused", refused)
	}
}

// A place that is never released comes back after one term at the earliest, and after two at the latest.
func TestConcurrencyLeak(t *testing.T) {
	for _, begun := range []int64{0, 1, 30 * sec, 60*sec - 1} {
		c := mustConcurrency(t, 1, time.Minute)
		lost, _ := c.Begin(Key{}, 1, begun)
		if _, d := c.Begin(Key{}, 1, begun+60*sec); d.Allowed {
			t.Errorf("begun at %d: free before its term was over", begun)
		}
		if _, d := c.Begin(Key{}, 1, begun+120*sec); !d.Allowed {
			t.Errorf("begun at %d: leaked", begun)
		}
		c.Release(lost, begun+121*sec) // too late: the place is another's now
		if n := c.InFlight(Key{}, begun+121*sec); n != 1 {
			t.Errorf("a late release freed another's place: %d in flight", n)
		}
	}
}

// One that is renewed keeps its place for as long as it likes, and nothing is left of it in the end.
func TestConcurrencyRenew(t *testing.T) {
	c := mustConcurrency(t, 2, time.Minute)
	a, _ := c.Begin(Key{}, 2, 0)
	for now := int64(0); now < 3600*sec; now += 20 * sec {
		a = c.Renew(a, now)
		if n := c.InFlight(Key{}, now); n != 2 {
			t.Fatalf("at %d: %d in flight", now, n)
		}
	}
	c.Release(a, 3600*sec)
	c.Release(Ticket{}, 3600*sec)
	if n := c.InFlight(Key{}, 3600*sec); n != 0 {
		t.Fatalf("%d in flight after the release", n)
	}
}

func TestConcurrencyReconfigure(t *testing.T) {
	c := mustConcurrency(t, 3, time.Minute)
	var all []Ticket
	for range 3 {
		ticket, _ := c.Begin(Key{}, 1, 0)
		all = append(all, ticket)
	}
	smaller, err := c.Reconfigure(1, time.Minute, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, ticket := range all {
		if _, d := smaller.Begin(Key{}, 1, 0); d.Allowed {
			t.Fatalf("admitted with %d in flight of 1", 3-i)
		}
		[]*Concurrency{c, smaller}[i%2].Release(ticket, 0)
	}
	if _, d := smaller.Begin(Key{}, 1, 0); !d.Allowed || c.InFlight(Key{}, 0) != 1 {
		t.Fatalf("%+v after all were released", d)
	}
	// What is above the new bound keeps its places when it is renewed.
	big := mustConcurrency(t, 3, time.Minute)
	for i := range all {
		all[i], _ = big.Begin(Key{}, 1, 0)
	}
	small, _ := big.Reconfigure(1, time.Minute, 1000, 0)
	for i := range all {
		all[i] = small.Renew(all[i], 70*sec)
	}
	for i := range all {
		if n := small.InFlight(Key{}, 130*sec); n != uint32(3-i) {
			t.Fatalf("%d in flight, want %d", n, 3-i)
		}
		small.Release(all[i], 130*sec)
	}
	for _, most := range []uint32{0, MaxWindowCount + 1} {
		if _, err := c.Reconfigure(most, time.Minute, 1000, 0); err == nil {
			t.Fatalf("a limit of %d was admitted", most)
		}
	}
}

func TestConcurrencyRace(t *testing.T) {
	const workers, most = 4, 3
	c := mustConcurrency(t, most, time.Minute)
	var held, peak, clock atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range 20_000 {
				now := clock.Add(ms) // over some terms
				ticket, d := c.Begin(Key{}, 1, now)
				if !d.Allowed {
					continue
				}
				n := held.Add(1)
				for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
				}
				held.Add(-1)
				c.Release(ticket, clock.Load())
			}
		})
	}
	wg.Wait()
	if n := c.InFlight(Key{}, clock.Load()); n != 0 || peak.Load() > most {
		t.Fatalf("%d in flight in the end, %d at most", n, peak.Load())
	}
}
