package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/sluice-gateway/sluice/limits"
)

func hourly(limit uint32, a limits.Algorithm) limits.Window {
	return limits.Window{Algorithm: a, Limit: limit, Period: time.Hour}
}

// TestTake takes of several buckets: of all or of none.
func TestTake(t *testing.T) {
	c := newServer(t).client(nil)
	outer := buckets(t, c, "outer", hourly(10, limits.TokenBucket), limits.Window{Algorithm: limits.FixedWindow, Limit: 9, Period: 24 * time.Hour})
	inner := buckets(t, c, "inner", hourly(5, limits.SlidingWindow))
	f := func(want string, costs ...uint32) {
		t.Helper()
		asks := []limits.Ask{{Cost: costs[0]}, {Key: limits.Key{Hi: 1, Lo: uint64(costs[2])}, Cost: costs[1]}}
		if got := text(c.Take([]*Buckets{outer, inner}, asks)); got != want {
			t.Errorf("%v: %s, want %s", costs, got, want)
		}
	}
	f("true level 1 window 0: 3 of 5", 2, 2, 1)
	f("true level 1 window 0: 0 of 5", 3, 3, 1)
	f("false level 1 window 0: 0 of 5", 1, 1, 1) // and the outer one keeps what it has
	f("true level 0 window 1: 1 of 9", 3, 1, 2)
	f("false level 0 window 1: 1 of 9", 2, 1, 2)
	f("true level 1 window 0: 0 of 5", 0, 4, 2) // of which the outer one is not concerned
	f("false level 0 window 0: 2 of 10", 11, 1, 3)
	if d, _ := c.Take([]*Buckets{outer}, []limits.Ask{{Cost: 11}}); d.RetryAfter != limits.Never {
		t.Errorf("a cost that no bucket holds would be there in %v", d.RetryAfter)
	}
	d, err := outer.Peek(limits.Key{})
	if got := text(d, err); got != "true level 0 window 1: 1 of 9" {
		t.Errorf("peek: %s", got)
	}
	if used, err := outer.Forget(limits.Key{}); !used || err != nil {
		t.Errorf("forget: %t, %v", used, err)
	}
	if d, err = outer.Peek(limits.Key{}); text(d, err) != "true level 0 window 1: 9 of 9" {
		t.Errorf("after it was forgotten: %s", text(d, err))
	}
}

// TestTimes tells when it is worth to come back, and gives back what time does.
func TestTimes(t *testing.T) {
	c := newServer(t).client(nil)
	one := []limits.Ask{{Cost: 1}}
	quick := buckets(t, c, "quick", limits.Window{Limit: 100, Period: time.Second, Burst: 3})
	const each = 10 * time.Millisecond
	admitted, start := 0, time.Now()
	d, err := c.Take([]*Buckets{quick}, one)
	for ; d.Allowed; d, err = c.Take([]*Buckets{quick}, one) {
		if admitted++; admitted > 3+int(time.Since(start)/each) {
			t.Fatalf("%d are admitted: %s", admitted, text(d, err))
		}
	}
	if admitted < 3 || d.RetryAfter <= 0 || d.RetryAfter > 10*time.Millisecond || d.Reset > 30*time.Millisecond {
		t.Fatalf("%+v, %v", d, err)
	}
	time.Sleep(d.RetryAfter)
	if d, err = c.Take([]*Buckets{quick}, one); !d.Allowed {
		t.Error(text(d, err))
	}
	for _, a := range []limits.Algorithm{limits.FixedWindow, limits.SlidingWindow} {
		window := buckets(t, c, a.String(), limits.Window{Algorithm: a, Limit: 5, Period: 100 * time.Millisecond})
		admitted := 0
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if d, err := c.Take([]*Buckets{window}, one); err != nil {
				t.Fatal(err)
			} else if d.Allowed {
				admitted++
			} else if d.RetryAfter <= 0 || d.RetryAfter > 200*time.Millisecond {
				t.Fatalf("%s: %+v", a, d)
			}
		}
		if admitted < 20 || admitted > 30 {
			t.Errorf("%s admitted %d in half a second, of 5 in 100ms", a, admitted)
		}
	}
}

// TestCharge takes after the fact: a token bucket owes at most as much as it holds.
func TestCharge(t *testing.T) {
	c := newServer(t).client(nil)
	b := buckets(t, c, "b", hourly(3600, limits.TokenBucket))
	if _, err := c.Take([]*Buckets{b}, []limits.Ask{{Cost: 600}}); err != nil {
		t.Fatal(err)
	}
	remains := func(want uint32) {
		t.Helper()
		await(t, func() bool { d, _ := b.Peek(limits.Key{}); return d.Remaining == want }, fmt.Sprintf("there are never %d left", want))
	}
	b.Charge(limits.Key{}, 1000)
	remains(2000)
	b.Refund(limits.Key{}, 500)
	remains(2500)
	b.Charge(limits.Key{}, 100000)
	remains(0)
	d, err := c.Take([]*Buckets{b}, []limits.Ask{{Cost: 1}})
	if d.Allowed || d.RetryAfter < 3599*time.Second || d.RetryAfter > 3602*time.Second {
		t.Errorf("%+v, %v: want to pay what is owed, an hour's tokens, first", d, err)
	}
}

// TestStrictIsExact has many clients of several nodes take at once: as many are admitted as there are tokens.
func TestStrictIsExact(t *testing.T) {
	s := newServer(t)
	const limit, nodes, clients, each = 1000, 3, 32, 50
	var admitted, failed atomic.Int64
	var done sync.WaitGroup
	var commands, batches uint64
	var all []*Client
	for range nodes {
		c := s.client(func(s *Spec) { s.Timeout = time.Second })
		all = append(all, c)
		b := buckets(t, c, "b", hourly(limit, limits.FixedWindow))
		for range clients {
			done.Go(func() {
				for range each {
					d, err := c.Take([]*Buckets{b}, []limits.Ask{{Cost: 1}})
					switch {
					case err != nil:
						failed.Add(1)
					case d.Allowed:
						admitted.Add(1)
					}
				}
			})
		}
	}
	done.Wait()
	for _, c := range all {
		commands += c.Status().Commands
		batches += c.Status().Batches
	}
	t.Logf("%d takes, %d admitted, %d commands in %d batches", nodes*clients*each, admitted.Load(), commands, batches)
	if admitted.Load() != limit || failed.Load() > 0 {
		t.Errorf("%d of %d were admitted, %d failed", admitted.Load(), limit, failed.Load())
	}
	if batches*2 > commands {
		t.Errorf("%d commands took %d round trips", commands, batches)
	}
}

// TestAway kills, starts and stops Redis: nobody waits longer than the timeout, and nobody at all once it is known to be away; then all goes
// on by itself.
func TestAway(t *testing.T) {
	s := newServer(t)
	c := s.client(briefly)
	b := buckets(t, c, "b", hourly(1<<30, limits.TokenBucket))
	var worst atomic.Int64
	var stop atomic.Bool
	var done sync.WaitGroup
	for range 16 {
		done.Go(func() {
			for !stop.Load() {
				start := time.Now()
				_, err := c.Take([]*Buckets{b}, []limits.Ask{{Cost: 1}})
				worst.Store(max(worst.Load(), int64(time.Since(start))))
				if err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for _, step := range []struct {
		name       string
		away, back func()
	}{{"killed", s.kill, s.start}, {"stopped", s.pause, s.resume}, {"killed again", s.kill, s.start}} {
		step.away()
		await(t, c.Away, step.name+": the circuit does not open")
		before := c.Status()
		time.Sleep(50 * time.Millisecond)
		if after := c.Status(); after.Alone == before.Alone || after.Timeouts-before.Timeouts > 64 || after.Problem == "" {
			t.Errorf("%s: while it is away: %+v, and then %+v", step.name, before, after)
		}
		step.back()
		await(t, func() bool { return !c.Away() }, step.name+": it does not come back")
		await(t, func() bool { _, err := c.Take([]*Buckets{b}, []limits.Ask{{Cost: 1}}); return err == nil }, step.name+": no take succeeds")
	}
	stop.Store(true)
	done.Wait()
	// The machine may be busy: what must not be is a wait that goes by anything but the timeout, of 50 ms. What the library waits for by
	// itself is a second.
	if w := time.Duration(worst.Load()); w > 800*time.Millisecond {
		t.Errorf("somebody waited for %v", w)
	}
	t.Logf("the longest wait: %v; %+v", time.Duration(worst.Load()), c.Status())
}

// TestBounded puts more questions than there is room for, while nobody takes them.
func TestBounded(t *testing.T) {
	c, err := New(Spec{Addresses: []string{"127.0.0.1:1"}, Mode: Single, Timeout: time.Millisecond, Clock: wall, Log: newLog()})
	if err != nil {
		t.Fatal(err)
	}
	b := buckets(t, c, "b", hourly(5, limits.TokenBucket))
	room := 0
	for b.Ask(limits.Key{Lo: uint64(room)}, 1, 0) {
		room++
	}
	if room != maxWaiting || c.Status().Dropped != 1 || c.Status().Waiting != room {
		t.Errorf("%d found room: %+v", room, c.Status())
	}
	if n := testing.AllocsPerRun(100, func() { b.Ask(limits.Key{}, 1, 0) }); n > 0 {
		t.Errorf("a question takes %v allocations", n)
	}
}

// TestKeysExpire looks at what stands in Redis: nothing that a client sent, nothing for ever, and what is no state of ours harms nobody.
func TestKeysExpire(t *testing.T) {
	s := newServer(t)
	c := s.client(nil)
	conn, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := context.Background()
	b := buckets(t, c, "b", limits.Window{Limit: 1000, Period: time.Second}, hourly(60, limits.FixedWindow))
	if _, err := c.Take([]*Buckets{b}, []limits.Ask{{Key: limits.Key{Hi: 1, Lo: 2}, Cost: 5}}); err != nil {
		t.Fatal(err)
	}
	keys, err := conn.Do(ctx, conn.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], "sluice:{") || !strings.HasSuffix(keys[0], ":00000000000000010000000000000002") || len(keys[0]) > 72 {
		t.Fatalf("%q, %v", keys, err)
	}
	left, err := conn.Do(ctx, conn.B().Pttl().Key(keys[0]).Build()).AsInt64()
	if err != nil || left <= 0 || left > time.Hour.Milliseconds() {
		t.Errorf("it expires in %d ms, %v", left, err)
	}
	f := func(value, want string) {
		t.Helper()
		if err := conn.Do(ctx, conn.B().Set().Key(keys[0]).Value(value).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if got := text(c.Take([]*Buckets{b}, []limits.Ask{{Key: limits.Key{Hi: 1, Lo: 2}, Cost: 5}})); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	f("what is this", "true")
	f("", "true")
	f("1e300 1 1 1e300 1 1", "true")
	f("nan 1 1 inf inf inf", "")
	if err := conn.Do(ctx, conn.B().Del().Key(keys[0]).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Do(ctx, conn.B().Rpush().Key(keys[0]).Element("x").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Take([]*Buckets{b}, []limits.Ask{{Key: limits.Key{Hi: 1, Lo: 2}, Cost: 5}}); err == nil || c.Away() {
		t.Errorf("a key of another type: %v, away %t: want an error of this key alone", err, c.Away())
	}
}

// TestBadSpec refuses what cannot be.
func TestBadSpec(t *testing.T) {
	for i, s := range []Spec{{}, {Addresses: []string{"a:1"}, Timeout: 2 * time.Second}, {Addresses: []string{"a:1"}, Timeout: time.Second}} {
		if _, err := New(s); err == nil {
			t.Errorf("spec %d is taken", i)
		}
	}
	c, err := New(Spec{Addresses: []string{"a:1"}, Timeout: time.Second, Clock: wall, Log: newLog()})
	if err != nil {
		t.Fatal(err)
	}
	for _, windows := range [][]limits.Window{nil, make([]limits.Window, limits.MaxWindows+1), {{Algorithm: limits.LeakyBucket, Limit: 1, Period: time.Second}}} {
		if _, err := c.Buckets(BucketSpec{Windows: windows}); err == nil {
			t.Errorf("%+v is taken", windows)
		}
	}
}
