package health

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowBreaker says when a closed breaker opens by keeping every request of the window.
type slowBreaker struct {
	spec    BreakerSpec
	samples []sample
	row     int
}

type sample struct {
	tenth        int64
	failed, slow bool
}

func (b *slowBreaker) opens(failed, slow bool, now int64) bool {
	tenth := now / (int64(b.spec.Window) / 10)
	b.samples = append(b.samples, sample{tenth, failed, slow})
	b.row++
	if !failed {
		b.row = 0
	}
	for b.samples[0].tenth <= tenth-10 {
		b.samples = b.samples[1:]
	}
	requests, failures, slows := len(b.samples), 0, 0
	for _, s := range b.samples {
		if s.failed {
			failures++
		}
		if s.slow {
			slows++
		}
	}
	return b.spec.Consecutive > 0 && b.row >= b.spec.Consecutive || requests >= b.spec.MinRequests &&
		(b.spec.ErrorPercent > 0 && float64(failures)/float64(requests) >= b.spec.ErrorPercent/100 ||
			b.spec.SlowPercentile > 0 && float64(requests-slows)/float64(requests) < b.spec.SlowPercentile/100)
}

// A breaker opens with exactly the request with which one would that forgets nothing too early or too late.
func TestBreakerOpensInTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	opened, deepest := 0, 0
	for round := range 200 {
		spec := DefaultBreaker()
		spec.Window, spec.MinRequests, spec.ErrorPercent = time.Duration(1+r.IntN(30))*time.Second, 1+r.IntN(50), 25*float64(r.IntN(4))
		spec.SlowPercentile, spec.SlowOver = []float64{0, 75, 87.5}[r.IntN(3)], time.Second
		spec.Consecutive = r.IntN(10)
		if spec.Validate() != nil {
			continue
		}
		b, _ := NewBreaker(spec)
		slow := &slowBreaker{spec: spec}
		now, failing := int64(r.IntN(1e9)), r.Float64()*0.6
		for n := range 2000 {
			now += r.Int64N(int64(200 * time.Millisecond))
			if r.IntN(100) == 0 {
				now += r.Int64N(2 * int64(spec.Window))
			}
			failed, took := r.Float64() < failing, time.Duration(0)
			if r.Float64() < failing/2 {
				took = 2 * time.Second
			}
			p, ok := b.Allow(now)
			if !ok {
				t.Fatal("a closed breaker refused")
			}
			want := slow.opens(failed, took > spec.SlowOver && spec.SlowPercentile > 0, now)
			if got := b.Report(p, failed, took, now); got.Changed != want {
				t.Fatalf("round %d, request %d: opened %v for %q, want %v", round, n, got.Changed, got.Cause, want)
			}
			if want {
				opened++
				deepest = max(deepest, n)
				break
			}
		}
	}
	if opened < 50 || deepest < 100 {
		t.Errorf("%d opened, after up to %d requests: the test says little", opened, deepest)
	}
}

// In any order of events at most Probes requests pass an open breaker in a spell, none in its cooldown, and it always closes
// once the upstream has recovered.
func TestBreakerProbes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		spec := DefaultBreaker()
		spec.Probes, spec.Consecutive, spec.Cooldown, spec.MaxCooldown = 1+r.IntN(5), 3, time.Second, 10*time.Second
		b, _ := NewBreaker(spec)
		now := int64(0)
		for range 3 {
			p, _ := b.Allow(now)
			b.Report(p, true, 0, now)
		}
		var out []Permit
		inSpell := map[Permit]int{}
		for range 2000 {
			now += r.Int64N(int64(300 * time.Millisecond))
			if r.IntN(2) == 0 {
				after := b.RetryAfter(now)
				p, ok := b.Allow(now)
				if ok && after > 0 {
					t.Fatalf("allowed %v before the cooldown ends", after)
				}
				if ok && b.State() == HalfOpen {
					out = append(out, p)
					if inSpell[p]++; inSpell[p] > spec.Probes {
						t.Fatalf("%d probes in one spell, %d may be", inSpell[p], spec.Probes)
					}
				}
			} else if len(out) > 0 {
				i := r.IntN(len(out))
				p := out[i]
				out = append(out[:i], out[i+1:]...)
				switch r.IntN(4) {
				case 0: // it never ends
				case 1:
					b.Cancel(p)
					inSpell[p]--
				default:
					b.Report(p, r.IntN(2) == 0, 0, now)
				}
			}
		}
		for n := 0; b.State() != Closed; n++ {
			if n > 100 {
				t.Fatal("does not close, though all requests succeed")
			}
			now += int64(time.Second)
			if p, ok := b.Allow(now); ok {
				b.Report(p, false, 0, now)
			}
		}
	}
}

// opened gives a breaker that lets so many probes pass from its cooldown on.
func opened(probes int) (b *Breaker, now int64) {
	spec := DefaultBreaker()
	spec.Consecutive, spec.Probes = 1, probes
	b, _ = NewBreaker(spec)
	p, _ := b.Allow(0)
	b.Report(p, true, 0, 0)
	return b, int64(spec.Cooldown)
}

// Two loops come to an open breaker at once: exactly so many requests pass as it has probes.
func TestBreakerProbesAtOnce(t *testing.T) {
	b, now := opened(5)
	var passed atomic.Int64
	duel(30_000, func(int) {
		for range 5 {
			if _, ok := b.Allow(now); ok {
				passed.Add(1)
			}
		}
	}, func(round int) {
		if n := passed.Swap(0); n != 5 {
			t.Fatalf("round %d: %d passed", round, n)
		}
		b, now = opened(5)
	})
}

// The last two probes report at once: the breaker closes, once.
func TestBreakerClosesOnce(t *testing.T) {
	var b *Breaker
	var now int64
	var p Permit
	halfOpen := func() {
		b, now = opened(2)
		p, _ = b.Allow(now)
		b.Allow(now)
	}
	halfOpen()
	var closed atomic.Int64
	duel(30_000, func(int) {
		if c := b.Report(p, false, 0, now); c.Changed && c.To == Closed {
			closed.Add(1)
		}
	}, func(round int) {
		if n := closed.Swap(0); n != 1 || b.State() != Closed {
			t.Fatalf("round %d: closed %d times, is %v", round, n, b.State())
		}
		halfOpen()
	})
}

// The window's sum is what its buckets add up to, however two loops meet at a tenth that begins.
func TestRingSum(t *testing.T) {
	r := ring{width: 10}
	now := int64(0)
	check := func(round int) {
		t.Helper()
		requests, failures, slow := int64(0), int64(0), int64(0)
		for i := range r.buckets {
			requests += r.buckets[i].requests.Load()
			failures += r.buckets[i].failures.Load()
			slow += r.buckets[i].slow.Load()
		}
		if requests != r.sum.requests.Load() || failures != r.sum.failures.Load() || slow != r.sum.slow.Load() {
			t.Fatalf("round %d: the sum is %d, the buckets are %d", round, r.sum.requests.Load(), requests)
		}
		if want := int64(2 * min(round+1, 10)); requests != want || failures != want || slow != want {
			t.Fatalf("round %d: %d requests, %d failures, %d slow", round, requests, failures, slow)
		}
	}
	duel(20_000, func(int) { r.add(true, true, now) }, func(round int) {
		check(round)
		now += r.width
	})
	r.clear()
	if r.sum != (counts{}) {
		t.Error("something is left")
	}
}

// While old requests expire and others are added, the breaker never sees a share of failures that there was not.
func TestBreakerSeesNoFalseShare(t *testing.T) {
	spec := DefaultBreaker()
	spec.MinRequests, spec.ErrorPercent, spec.Window = 10, 60, time.Second
	for range 20 {
		b, _ := NewBreaker(spec)
		var clock atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for i := range 10_000 {
					now := clock.Add(int64(time.Millisecond))
					p, ok := b.Allow(now)
					if c := b.Report(p, i%3 == 2, 0, now); !ok || c.Changed {
						t.Errorf("request %d: opened by %v though a third fails", i, c.Cause)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}
