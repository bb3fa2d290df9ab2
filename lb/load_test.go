package lb

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

const second = int64(time.Second)

func watched() *Load {
	l, spec := NewLoad(0), Defaults(PeakEWMA)
	l.configure(&spec)
	return l
}

func TestLatencyIsPeakSensitive(t *testing.T) {
	l := watched()
	f := func(now, latency float64, failed bool, want float64) {
		t.Helper()
		l.Begin()
		at := int64(now * 1e9)
		l.End(at, int64(latency*1e6), failed)
		if got := float64(l.Latency(at)) / 1e6; math.Abs(got-want) > 0.003*want {
			t.Errorf("at %vs after %vms: got %.3fms, want %.3fms", now, latency, got, want)
		}
	}
	decay := func(from, to, elapsed float64) float64 { return to + (from-to)*math.Exp(-elapsed/10) }
	f(100, 10, false, 10)
	f(100, 50, false, 50) // a slower one counts at once
	f(100, 10, false, 50) // a faster one as time passes
	f(105, 10, false, decay(50, 10, 5))
	f(105, 10, false, decay(50, 10, 5))
	f(135, 10, false, decay(decay(50, 10, 5), 10, 30))
	f(136, 1, true, 1000)    // a failure is a slow answer
	f(136, 2500, true, 2500) // or a slower one
	if got := l.Latency(146 * second); math.Abs(float64(got)/2.5e9*math.E-1) > 0.003 {
		t.Errorf("after 10 s without a request: %v", got)
	}
	if got := l.Latency(100_000 * second); got != 0 {
		t.Errorf("after a day without a request: %v", got)
	}
	if got := l.Latency(135 * second); got < 2499*time.Millisecond || got > 2501*time.Millisecond {
		t.Errorf("by a clock that is behind: %v", got)
	}
}

// Only where the algorithm needs it is the latency kept.
func TestLatencyIsNotKeptInVain(t *testing.T) {
	l := NewLoad(0)
	l.Begin()
	l.End(second, second, false)
	if got := l.Latency(second); got != 0 {
		t.Errorf("got %v", got)
	}
}

func TestExp2(t *testing.T) {
	for x := float32(0); x > -130; x -= 0.0137 {
		got, want := float64(exp2(x)), math.Exp2(float64(x))
		if math.Abs(got-want) > 0.001*want && want > 1e-37 {
			t.Fatalf("2^%v: got %v, want %v", x, got, want)
		}
	}
	if exp2(-1e30) != 0 {
		t.Error("2^-1e30 is not 0")
	}
}

func TestLoadSharesNoCacheLine(t *testing.T) {
	var l Load
	if unsafe.Sizeof(l) != 128 || unsafe.Offsetof(l.flags) != 64 {
		t.Errorf("size %d, flags at %d", unsafe.Sizeof(l), unsafe.Offsetof(l.flags))
	}
}

// Loops report at the same time, and nothing is lost.
func TestLoadIsShared(t *testing.T) {
	l := watched()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range int64(200_000) {
				l.Begin()
				l.Raise(Ejected)
				l.End(i*1e6, 1000+i, false)
				l.Clear(Ejected, i)
			}
		})
	}
	wg.Wait()
	if l.InFlight() != 0 || !l.Available() {
		t.Errorf("%d in flight, flags %b", l.InFlight(), l.Flags())
	}
	if got := l.Latency(199_999 * 1e6); got < 190_000 || got > 201_300 {
		t.Errorf("latency %v", got)
	}
}

// Loops pick, each with its own picker, while health and weights change and sets are replaced: run with -race.
func TestLoopsPickWhileSetsChange(t *testing.T) {
	everyAlgorithm(t, func(t *testing.T, spec Spec) {
		es := alike(8)
		var current atomic.Pointer[Set]
		current.Store(NewSet(&spec, es, 0))
		var loops sync.WaitGroup
		for l := range 3 {
			loops.Go(func() {
				var p Picker
				var in *Set
				for i := range int64(3000) {
					if s := current.Load(); s != in {
						in, p = s, NewPicker(s, uint64(l), p)
					}
					a := Attempt{Key: mix(uint64(i)), Keyed: true, Now: i * 1e6}
					e := p.Pick(&a)
					if e == nil {
						t.Error("nothing was picked")
						return
					}
					e.Load.Begin()
					e.Load.End(i*1e6, i, i%7 == 0)
				}
			})
		}
		for i := range 40 {
			e := es[1+i%7] // the first stays
			if !e.Load.Raise(Ejected) {
				e.Load.Clear(Ejected, int64(i))
			}
			e.Load.SetWeight(i % 3)
			current.Store(NewSet(&spec, es, int64(i)))
		}
		loops.Wait()
		for _, e := range es {
			if n := e.Load.InFlight(); n != 0 {
				t.Errorf("%s has %d in flight", e.Address, n)
			}
		}
	})
}

func TestEndNeedsBegin(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an end without a begin went unnoticed")
		}
	}()
	NewLoad(0).End(0, 0, false)
}

func TestWeightAtRunTime(t *testing.T) {
	spec, es := Defaults(RoundRobin), pool(1, 1)
	f := func(w int, want float64) {
		t.Helper()
		es[0].Load.SetWeight(w)
		if _, share := shareOf(NewSet(&spec, es, 0), es[0]); math.Abs(share-want) > 1e-9 {
			t.Errorf("weight %d: share %v, want %v", w, share, want)
		}
	}
	f(3, 0.75)
	f(0, 0)
	f(1000, 1000.0/1001)
	f(-1, 0.5)
}

// Who did not wait for the answer says only that it would have taken longer.
func TestLeave(t *testing.T) {
	l := watched()
	f := func(now, waited int64, want float64) {
		t.Helper()
		l.Begin()
		l.Leave(now*second, waited*second)
		if got := l.Latency(now * second).Seconds(); math.Abs(got-want) > 0.01*want {
			t.Errorf("at %ds after %ds: got %vs, want %vs", now, waited, got, want)
		}
		if l.InFlight() != 0 {
			t.Errorf("%d in flight", l.InFlight())
		}
	}
	f(100, 2, 2)
	f(105, 1, 2*math.Exp(-0.5)) // it would have taken that, for all we know
	f(105, 3, 3)
	plain := NewLoad(0)
	plain.Begin()
	plain.Leave(second, second)
	if plain.InFlight() != 0 || plain.Latency(second) != 0 {
		t.Error("a latency is kept in vain, or the request")
	}
}
