package health

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func canarySpec() CanarySpec {
	return CanarySpec{Steps: []int{5, 25, 100}, Hold: 10 * time.Minute, Abort: "errors > 1%", Window: time.Minute, MinRequests: 100}
}

// Whatever happens, the share rises only by a step that was held and had its requests, or by hand, and falls only to nothing.
func TestCanaryKeepsItsRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ends := map[CanaryState]int{}
	for range 40 {
		now := int64(r.IntN(1e9))
		spec := canarySpec()
		spec.Hold = 2 * time.Minute
		c, _ := NewCanary(spec, now)
		failing := r.Float64() * 0.02 // around the 1 % that may fail
		requests, failures, held, restarted := 0, 0, time.Duration(0), false
		for range 50 + r.IntN(600) {
			was := c.Status()
			byHand, left := false, requests
			switch n := r.IntN(100); {
			case n < 60:
				d := time.Duration(r.Int64N(int64(5 * time.Second)))
				now += int64(d)
				if was.State == Progressing {
					held += d
				}
				for range r.IntN(20) {
					failed := r.Float64() < failing
					if c.Report(true, failed, time.Millisecond); failed {
						failures++
					}
					requests++
				}
				continue
			case n < 95:
				c.Tick(now)
			case n == 95:
				c.Pause("hand", now)
			case n == 96:
				c.Resume("hand", now)
			case n == 97 && r.IntN(10) == 0:
				byHand = c.Forward("hand", now)
			case n == 98 && r.IntN(10) == 0:
				byHand = c.Promote("hand", now)
			case n == 99:
				next, err := ImportCanary(spec, c.Export(now), now)
				if err != nil {
					t.Fatal(err)
				}
				c, requests, failures, restarted = next, 0, 0, true
			}
			is := c.Status()
			if is.Why == "" || is.Percent != c.Percent() {
				t.Fatalf("%+v", is)
			}
			switch {
			case is.State == Aborted:
				if is.Percent != 0 || was.State == Promoted {
					t.Fatalf("%+v after %+v", is, was)
				}
				if was.State != Aborted && failures == 0 {
					t.Fatalf("aborted without a failure: %s", is.Why)
				}
			case is.State == Promoted:
				if is.Percent != 100 {
					t.Fatalf("%+v", is)
				}
			case is.Percent != spec.Steps[is.Step]:
				t.Fatalf("%d%% at step %d", is.Percent, is.Step)
			}
			if is.Step != was.Step || is.State == Promoted && was.State != Promoted {
				if !byHand && (held < spec.Hold || left < spec.MinRequests || was.State != Progressing) {
					t.Fatalf("forward after %v, %d requests, while %v (restarted %v): %s", held, left, was.State, restarted, is.Why)
				}
				requests, failures, held = 0, 0, 0
			}
			if (is.State == Progressing || is.State == Paused) && is.Canary.Requests != uint64(requests) {
				t.Fatalf("%d requests were counted, %d there were", is.Canary.Requests, requests)
			}
		}
		ends[c.Status().State]++
	}
	for _, s := range []CanaryState{Progressing, Promoted, Aborted} {
		if ends[s] < 4 {
			t.Errorf("%d of 40 ended %v: the test says little", ends[s], s)
		}
	}
}

// Loops report while the owner ticks: nothing is lost, and what fails is seen.
func TestCanaryAtOnce(t *testing.T) {
	spec := canarySpec()
	spec.Abort, spec.Window = "errors > 60%", 10*time.Second
	c, _ := NewCanary(spec, 0)
	const loops, each = 4, 20_000
	var wg sync.WaitGroup
	for range loops {
		wg.Go(func() {
			for i := range each {
				c.Report(i%2 == 0, i%4 < 2, time.Duration(i)*time.Microsecond)
			}
		})
	}
	for now := range int64(1000) {
		c.Tick(now * int64(100*time.Millisecond))
	}
	wg.Wait()
	s := c.Status()
	if s.State != Progressing || s.Canary.Requests != loops*each/2 || s.Stable.Requests != loops*each/2 || s.Canary.Failures != loops*each/4 {
		t.Errorf("%+v", s)
	}
	if s.Canary.P99 < 18*time.Millisecond || s.Canary.P99 > 21*time.Millisecond || s.Stable.P50 < 9*time.Millisecond || s.Stable.P50 > 11*time.Millisecond {
		t.Errorf("%+v", s)
	}
}

// What two loops report at once is counted twice.
func TestCanaryReportsAtOnce(t *testing.T) {
	spec := canarySpec()
	spec.Abort = ""
	c, _ := NewCanary(spec, 0)
	want := uint64(2 * duel(50_000, func(int) { c.Report(true, true, time.Millisecond) }, func(int) {}))
	if s := c.Status().Canary; s.Requests != want || s.Failures != want {
		t.Errorf("%+v, want %d", s, want)
	}
}

func TestCanaryTicksLate(t *testing.T) {
	c, _ := NewCanary(canarySpec(), 0)
	for range 100 {
		c.Report(true, true, 0)
	}
	// Hours later, in which nobody ticked: the requests were in one window all the same.
	if !c.Tick(int64(5*time.Hour)) || c.Percent() != 0 || !strings.Contains(c.Status().Why, "100 requests of 1m0s") {
		t.Errorf("%+v", c.Status())
	}
}

func TestImportCanaryRefuses(t *testing.T) {
	c, _ := NewCanary(canarySpec(), 0)
	good := string(c.Export(int64(time.Minute)))
	if _, err := ImportCanary(canarySpec(), []byte(good), 0); err != nil {
		t.Fatal(err)
	}
	f := func(from, to, want string) {
		t.Helper()
		bad := strings.Replace(good, from, to, 1)
		if bad == good {
			t.Fatalf("there is no %q in %s", from, good)
		}
		if _, err := ImportCanary(canarySpec(), []byte(bad), 0); err == nil || !strings.HasPrefix(err.Error(), "cannot import canary: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", bad, err, want)
		}
	}
	f(`"version":1`, `"version":2`, "unknown version 2")
	f(`[5,25,100]`, `[5,25]`, "its steps are [5 25], not [5 25 100]")
	f(`progressing`, `running`, `unknown state "running"`)
	f(`"step":0`, `"step":3`, "no step 3")
	f(`"step":0`, `"step":-1`, "no step -1")
	f(`"age_ns":`, `"age_ns":-`, "times")
	f(`"held_ns":`, `"held_ns":9000000`, "times")
	f(`"why":"`, `"why":"`+strings.Repeat("x", 513), "reason")
	f(`"why":"`, `"why":"`+strings.Repeat("x", 5000), "more than 4096 bytes")
	f(`{`, `{"extra":1,`, "unknown field")
	f(`}`, `}{}`, "something follows")
	f(`}`, ``, "unexpected EOF")
	if _, err := ImportCanary(CanarySpec{}, []byte(good), 0); err == nil {
		t.Error("a spec that cannot be was taken")
	}
}

// A reason of any length and content can be exported and imported.
func TestExportCanaryReason(t *testing.T) {
	for _, why := range []string{strings.Repeat("\x00", 600), strings.Repeat("ä", 600), "\xff\xfe", strings.Repeat("<", 511) + "ä", ""} {
		c, _ := NewCanary(canarySpec(), 0)
		c.Abort(why, 0)
		b := c.Export(0)
		if len(b) > maxCanaryExportBytes {
			t.Errorf("%d bytes", len(b))
		}
		again, err := ImportCanary(canarySpec(), b, 0)
		if err != nil || !strings.HasPrefix(why, again.Status().Why) || again.Percent() != 0 {
			t.Errorf("%q: %v", why, err)
		}
	}
}

// What is imported is exported the same, and can go on.
func FuzzImportCanary(f *testing.F) {
	c, _ := NewCanary(canarySpec(), 0)
	f.Add(c.Export(int64(time.Minute)))
	c.Forward("why", 0)
	c.Pause("why", int64(time.Second))
	f.Add(c.Export(int64(time.Minute)))
	c.Abort("errors 2%", int64(time.Hour))
	f.Add(c.Export(int64(2 * time.Hour)))
	f.Add([]byte(`{"version":1,"steps":[5,25,100],"state":"promoted","step":2,"age_ns":1,"held_ns":2,"why":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		const now = int64(time.Hour)
		c, err := ImportCanary(canarySpec(), b, now)
		if err != nil {
			if c != nil || !strings.HasPrefix(err.Error(), "cannot import canary: ") {
				t.Fatal(err)
			}
			return
		}
		s := c.Status()
		if want := append(slices.Clone(canarySpec().Steps), 0); !slices.Contains(want, s.Percent) || s.Since > now {
			t.Fatalf("%+v", s)
		}
		out := c.Export(now)
		again, err := ImportCanary(canarySpec(), out, now)
		if err != nil || !bytes.Equal(again.Export(now), out) {
			t.Fatalf("%s became %s: %v", b, out, err)
		}
		c.Tick(now + int64(time.Hour))
		c.Resume("", now)
		c.Forward("", now)
	})
}
