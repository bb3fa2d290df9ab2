package limits

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// v4 is the n-th of many IPv4 addresses.
func v4(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }

func (t *Connections) used() int {
	n := 0
	for i := range t.words {
		if t.words[i].Load() != 0 {
			n++
		}
	}
	return n
}

func TestConnectionsLimit(t *testing.T) {
	c := NewConnections(0)
	a, b := addr("192.0.2.1"), addr("192.0.2.2")
	for i, want := range []bool{true, true, true, false, false} {
		if got := c.Take(a, 3); got != want {
			t.Fatalf("take %d of 3: %v", i+1, got)
		}
	}
	if !c.Take(b, 3) {
		t.Fatal("another key was refused")
	}
	if n := c.Count(a); n != 3 {
		t.Fatalf("count %d, want 3", n)
	}
	c.Release(a)
	if !c.Take(a, 3) || c.Take(a, 3) {
		t.Fatal("a release must make room for one, and only one")
	}
	if !c.Take(a, 0) || !c.Take(a, -1) || c.Count(a) != 5 {
		t.Fatal("without a limit all are admitted and counted")
	}
	for range 5 {
		c.Release(a)
	}
	c.Release(b)
	if c.used() != 0 {
		t.Fatalf("%d words are used after everything was released", c.used())
	}
	c.Release(a) // of one that is not counted
	if c.Count(a) != 0 || c.used() != 0 {
		t.Fatal("a release too many was counted")
	}
}

func TestConnectionsKeys(t *testing.T) {
	same := func(a, b string, want bool) {
		t.Helper()
		c := NewConnections(0)
		c.Take(addr(a), 1)
		if got := !c.Take(addr(b), 1); got != want {
			t.Errorf("%s and %s share a count: %v, want %v", a, b, got, want)
		}
	}
	same("192.0.2.1", "192.0.2.1", true)
	same("192.0.2.1", "192.0.2.2", false)
	same("192.0.2.1", "::ffff:192.0.2.1", true)
	same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true)
	same("2001:db8:1:2::1", "2001:db8:1:3::1", false)
	same("fe80::1%eth0", "fe80::2", true)
	same("::1", "0.0.0.0", false)

	c := NewConnections(0)
	for range 10 {
		if !c.Take(netip.Addr{}, 1) {
			t.Fatal("a peer without address was refused")
		}
	}
	c.Release(netip.Addr{})
	if c.used() != 0 {
		t.Fatal("a peer without address was counted")
	}
}

// A full window admits, says so, and leaves the counts of others as they are.
func TestConnectionsAtCapacity(t *testing.T) {
	c := NewConnections(MinConnections)
	const keys = 1000
	for i := range keys {
		if !c.Take(v4(i), 1) {
			t.Fatalf("key %d was refused", i)
		}
	}
	if c.used() != MinConnections || c.Untracked() != keys-MinConnections {
		t.Fatalf("%d words used, %d untracked", c.used(), c.Untracked())
	}
	tracked := 0
	for i := range keys {
		if c.Count(v4(i)) == 1 {
			tracked++
			if c.Take(v4(i), 1) {
				t.Fatal("a counted key went over its limit in a full table")
			}
		}
	}
	if tracked != MinConnections {
		t.Fatalf("%d keys are counted, want %d", tracked, MinConnections)
	}
	for i := range keys {
		c.Release(v4(i))
	}
	if c.used() != 0 {
		t.Fatalf("%d words are used after everything was released", c.used())
	}
}

// Two words of one key, as two loops may make them in the same instant, count as their sum and are both given up.
func TestConnectionsTwoWords(t *testing.T) {
	c := NewConnections(0)
	a := addr("192.0.2.1")
	window, tag := c.place(a)
	window[2].Store(tag<<countBits | 2)
	window[5].Store(tag<<countBits | 1)
	if !c.Take(a, 4) || c.Take(a, 4) || c.Count(a) != 4 {
		t.Fatalf("the limit of 4 is not kept, count %d", c.Count(a))
	}
	for range 4 {
		c.Release(a)
	}
	if c.used() != 0 {
		t.Fatalf("%d words are used after everything was released", c.used())
	}
}

// The share of keys that find their window full, as the doc comment promises.
func TestConnectionsOverflow(t *testing.T) {
	keys, missed := 0, uint64(0)
	for range 16 { // each has a hash of its own, of which a single one may be unlucky
		c := NewConnections(1 << 15)
		third := len(c.words) / 3
		for i := range third {
			c.Take(v4(i), 1)
		}
		keys, missed = keys+third, missed+c.Untracked()
	}
	if missed > uint64(keys/500) {
		t.Fatalf("%d of %d keys were not counted", missed, keys)
	}
}

// Many goroutines take and release few keys. What they hold never exceeds the limit by more than the stated bound, and
// nothing is left at the end.
func TestConnectionsRace(t *testing.T) {
	const workers, keys, limit, rounds = 8, 16, 3, 5000
	c := NewConnections(MinConnections)
	var held [keys]atomic.Int64
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(w)))
			var mine []int
			for range rounds {
				if len(mine) > 0 && r.IntN(2) == 0 {
					last := len(mine) - 1
					k := mine[last]
					mine = mine[:last]
					held[k].Add(-1)
					c.Release(v4(k))
					continue
				}
				k := r.IntN(keys)
				if !c.Take(v4(k), limit) {
					continue
				}
				admitted.Add(1)
				if n := held[k].Add(1); n > limit+workers-1 && c.Untracked() == 0 {
					t.Errorf("key %d is held %d times", k, n)
				}
				mine = append(mine, k)
				if r.IntN(50) == 0 {
					runtime.Gosched()
				}
			}
			for _, k := range mine {
				held[k].Add(-1)
				c.Release(v4(k))
			}
		}()
	}
	wg.Wait()
	if c.Untracked() == 0 && c.used() != 0 {
		t.Fatalf("%d words are used after everything was released", c.used())
	}
	if admitted.Load() < rounds {
		t.Fatalf("only %d were admitted", admitted.Load())
	}
}

// With one word for the key, which a first connection keeps alive, the limit is exact.
//
// Of two that race for the last place one gets it, round after round, at offsets of some nanoseconds.
func TestConnectionsExact(t *testing.T) {
	const rounds, over = 20000, 1 << 32
	const most = 2 * time.Second // where both are not run at once, a round takes milliseconds
	c := NewConnections(0)
	a := addr("192.0.2.7")
	c.Take(a, 2)
	var round, admitted, done atomic.Int64
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for r := int64(1); ; r++ {
			for spin := 0; round.Load() < r; spin++ {
				if spin > 3000 {
					runtime.Gosched()
				}
			}
			if round.Load() == over {
				return
			}
			if c.Take(a, 2) {
				admitted.Add(1)
			}
			done.Store(r)
		}
	}()
	start := time.Now()
	for r := int64(1); r <= rounds && (r%16 != 0 || time.Since(start) < most); r++ {
		admitted.Store(0)
		round.Store(r)
		for range r % 64 {
			_ = round.Load()
		}
		if c.Take(a, 2) {
			admitted.Add(1)
		}
		for spin := 0; done.Load() < r; spin++ {
			if spin > 3000 {
				runtime.Gosched()
			}
		}
		if n := admitted.Load(); (n != 1 || c.Count(a) != 2) && !t.Failed() {
			t.Errorf("round %d: %d got the last place", r, n)
		}
		c.Release(a)
	}
	round.Store(over)
	<-finished
}

func TestConnectionsAllocs(t *testing.T) {
	c := NewConnections(0)
	a, b := addr("192.0.2.1"), addr("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() {
		c.Take(a, 1)
		c.Take(b, 1)
		c.Release(a)
		c.Release(b)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkConnections(b *testing.B) {
	c := NewConnections(1 << 16)
	for i := range 1 << 14 {
		c.Take(v4(i), 0)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := int(rand.Uint32())
		for pb.Next() {
			i++
			a := v4(i & 0xffff)
			c.Take(a, 100)
			c.Release(a)
		}
	})
}
