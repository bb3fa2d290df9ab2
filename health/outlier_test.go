package health

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Whatever happens, what the settings promise holds: how many are ejected, for how long, and that the last one stays.
func TestDetectorKeepsItsBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ejections := 0
	for round := range 100 {
		spec := DefaultOutlier()
		spec.Consecutive5xx, spec.ConsecutiveGatewayFailure = 1+r.IntN(4), 1+r.IntN(4)
		spec.SplitLocalOrigin = r.IntN(2) == 0
		spec.MaxEjectionPercent, spec.AlwaysEjectOne, spec.KeepLast = r.IntN(101), r.IntN(2) == 0, r.IntN(3) > 0
		spec.MaxEjectionTimeJitter = time.Duration(r.IntN(2)) * 7 * time.Second
		spec.SuccessRateVolume, spec.FailurePercentVolume, spec.Enforcing[CauseFailurePercent] = 10, 10, 50
		d, err := NewDetector(spec, r)
		if err != nil {
			t.Fatal(err)
		}
		var all []*Tally
		since := map[*Tally]int64{}
		now := int64(0)
		take := func(events []Event) {
			t.Helper()
			for _, e := range events {
				switch e.Action {
				case Ejected:
					ejections++
					if !e.Tally.Ejected() || e.For < spec.BaseEjectionTime || e.For > spec.MaxEjectionTime+spec.MaxEjectionTimeJitter {
						t.Fatalf("round %d: %+v ejects for %v", round, spec, e.For)
					}
					active := d.Stats().Active
					if 100*active > spec.MaxEjectionPercent*len(all) && !(spec.AlwaysEjectOne && active == 1) {
						t.Fatalf("round %d: %d of %d are ejected, %d %% may be", round, active, len(all), spec.MaxEjectionPercent)
					}
					if _, twice := since[e.Tally]; twice {
						t.Fatal("ejected twice")
					}
					since[e.Tally] = now
					served := 0
					for _, o := range all {
						if !o.ejected && !o.unhealthy {
							served++
						}
					}
					if spec.KeepLast && served == 0 && !e.Tally.unhealthy {
						t.Fatal("the last one was ejected")
					}
				case Returned:
					if _, was := since[e.Tally]; !was {
						t.Fatal("returned without having been ejected")
					}
					delete(since, e.Tally)
				}
			}
			if d.Stats().Active != len(since) {
				t.Fatalf("%d are active, %d were counted", d.Stats().Active, len(since))
			}
		}
		for step := range 1000 {
			now += r.Int64N(int64(time.Second))
			switch n := r.IntN(40); {
			case n == 0 && len(all) < 12:
				all = append(all, d.Add(fmt.Sprint(step), 2))
			case n == 1 && len(all) > 0:
				i := r.IntN(len(all))
				d.Remove(all[i])
				delete(since, all[i])
				if events := d.Triggered(all[i], Trigger5xx, now); len(events) != 0 {
					t.Fatal("a removed endpoint was judged")
				}
				all = append(all[:i], all[i+1:]...)
			case n == 2:
				take(d.Interval(now))
				for e, at := range since {
					if now-at >= int64(spec.MaxEjectionTime+spec.MaxEjectionTimeJitter) {
						t.Fatalf("%s is ejected for %v", e.Name, time.Duration(now-at))
					}
				}
			case n == 3 && len(all) > 0:
				healthy := r.IntN(3) > 0
				if e, ok := d.Checked(all[r.IntN(len(all))], r.IntN(2) == 0, healthy, now); ok {
					take([]Event{e})
				}
			case len(all) > 0:
				e := all[r.IntN(len(all))]
				take(d.Triggered(e, e.Report(r.IntN(2), Outcome(r.IntN(int(Timeout)+1))), now))
			}
		}
	}
	if ejections < 500 {
		t.Errorf("only %d ejections: the test says little", ejections)
	}
}

// Loops report at once and the detector analyses meanwhile: every request is counted once, and each full run triggers once.
func TestTallyCountsAllLoops(t *testing.T) {
	const loops, requests, limit = 4, 20_000, 100
	spec := DefaultOutlier()
	spec.Consecutive5xx, spec.ConsecutiveGatewayFailure = limit, 0
	d, _ := NewDetector(spec, dice(0))
	e := d.Add("a", loops)
	var triggers atomic.Int64
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			for i := range requests {
				o := ServerError
				if i >= requests/2 {
					o = Success
				}
				if e.Report(loop, o) != NoTrigger {
					triggers.Add(1)
				}
			}
		})
	}
	stop := make(chan struct{})
	var requestsSeen, failuresSeen uint64
	collect := func() {
		d.Interval(0)
		requestsSeen += e.interval[0].requests()
		failuresSeen += e.interval[0].failures
	}
	go func() { wg.Wait(); close(stop) }()
	for running := true; running; {
		select {
		case <-stop:
			running = false
		default:
		}
		collect()
	}
	if requestsSeen != loops*requests || failuresSeen != loops*requests/2 {
		t.Errorf("%d requests and %d failures were seen", requestsSeen, failuresSeen)
	}
	if triggers.Load() < 1 {
		t.Error("a run of thousands of failures triggered nothing")
	}
}

// A run is full for exactly one of those who fail at once, until the detector has judged it.
func TestTallyTriggersOnce(t *testing.T) {
	spec := DefaultOutlier()
	spec.Consecutive5xx = 1000
	d, _ := NewDetector(spec, dice(99))
	e := d.Add("a", 4)
	var triggers atomic.Int64
	var wg sync.WaitGroup
	for loop := range 4 {
		wg.Go(func() {
			for range 1000 {
				if e.Report(loop, ServerError) != NoTrigger {
					triggers.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := triggers.Load(); n != 1 {
		t.Errorf("%d triggers", n)
	}
}

func TestStatusOutcome(t *testing.T) {
	for status, want := range map[int]Outcome{101: Success, 200: Success, 404: Success, 499: Success, 500: ServerError, 501: ServerError,
		502: GatewayError, 503: GatewayError, 504: GatewayError, 505: ServerError, 599: ServerError} {
		if got := StatusOutcome(status); got != want {
			t.Errorf("%d: got %v, want %v", status, got, want)
		}
	}
}
