package probe

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// ward is endpoints that a checker asks in virtual time.
type ward struct {
	*Checker
	mu     sync.Mutex
	start  time.Time
	sick   map[string]*Failure // by address
	takes  time.Duration       // a probe
	asked  map[string][]time.Duration
	under  int
	most   int
	events []string
	all    []Endpoint
	stop   func()
}

func settings(change func(s *Settings)) *Settings {
	s := &Settings{Spec: health.DefaultCheck(), Timeout: time.Second, AtOnce: 100, Question: &Question{TCP: &TCP{}}}
	s.Spec.JitterPercent = 0
	if change != nil {
		change(s)
	}
	return s
}

func newWard(t *testing.T, s *Settings, names ...string) *ward {
	t.Helper()
	w := &ward{sick: map[string]*Failure{}, asked: map[string][]time.Duration{}, start: time.Now()}
	w.Checker = NewChecker(func(all []Result) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, r := range all {
			if r.Changed {
				word := "unhealthy"
				if r.Healthy {
					word = "healthy"
				}
				w.events = append(w.events, r.Endpoint.Address+" "+word)
			}
		}
	})
	w.ask = w.answer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	for _, n := range names {
		w.all = append(w.all, Endpoint{Address: n, Load: lb.NewLoad(0)})
	}
	w.configure(t, s)
	w.assign(t, w.all)
	return w
}

func (w *ward) configure(t *testing.T, s *Settings) {
	t.Helper()
	if err := w.Configure(s); err != nil {
		t.Fatal(err)
	}
}

func (w *ward) assign(t *testing.T, all []Endpoint) {
	t.Helper()
	if err := w.Assign(all); err != nil {
		t.Fatal(err)
	}
}

// answer stands for a network.
func (w *ward) answer(ctx context.Context, _ *Question, e *Endpoint) *Failure {
	w.mu.Lock()
	w.asked[e.Address] = append(w.asked[e.Address], time.Since(w.start))
	w.under++
	w.most = max(w.most, w.under)
	takes, f := w.takes, w.sick[e.Address]
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.under--
		w.mu.Unlock()
	}()
	select {
	case <-time.After(takes):
		return f
	case <-ctx.Done():
		return failed(ctx, "answer", ctx.Err())
	}
}

func (w *ward) make(address string, f *Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sick[address] = f
}

// times is how often an address was asked since the last call.
func (w *ward) times(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.asked[address])
	delete(w.asked, address)
	return n
}

func (w *ward) said(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.events, want) {
		t.Errorf("at %s: reported %q, want %q", time.Since(w.start), w.events, want)
	}
	w.events = nil
}

func pass(d time.Duration) {
	time.Sleep(d) // of virtual time
	synctest.Wait()
}

var down = &Failure{Network, "connect: refused"}

// An endpoint that is taken for healthy is asked each second until it has answered, and each ten from then on. Three failures
// in a row take it out, two passes bring it back.
func TestCheckerThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, settings(nil), "a")
		defer w.stop()
		pass(time.Second)
		if n := w.times("a"); n < 1 || n > 2 { // the phase of 10 s may come after that of 1 s
			t.Errorf("%d probes in the first second", n)
		}
		pass(100 * time.Second)
		if n := w.times("a"); n < 9 || n > 10 {
			t.Errorf("%d probes in 100 s", n)
		}
		w.make("a", down)
		pass(20 * time.Second)
		w.said(t)
		pass(10 * time.Second)
		w.said(t, "a unhealthy")
		if s, _ := w.State(w.all[0].Load); s.Healthy || s.Reason != "connect: refused" || !s.Settled || time.Since(s.Since) > 10*time.Second {
			t.Errorf("state %+v", s)
		}
		w.make("a", nil)
		pass(20 * time.Second)
		w.said(t, "a healthy")
		c := w.Counts()
		if c.Probes[Passed] < 11 || c.Probes[Network] != 3 || c.Healthy != 1 || c.Unhealthy != 1 {
			t.Errorf("counts %+v", c)
		}
	})
}

// An endpoint that waits for its first check is fresh until it has passed once, or failed often enough; one that has served
// before it was checked is not.
func TestCheckerInitiallyUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings(func(s *Settings) { s.Spec.InitiallyHealthy = false })
		w := newWard(t, s, "a", "b")
		defer w.stop()
		w.make("b", down)
		if s, _ := w.State(w.all[0].Load); !s.Fresh || s.Healthy || w.Unsettled() != 2 {
			t.Errorf("state %+v, %d unsettled", s, w.Unsettled())
		}
		pass(time.Second)
		w.said(t, "a healthy")
		if s, _ := w.State(w.all[1].Load); !s.Fresh || w.Unsettled() != 1 {
			t.Errorf("state %+v, %d unsettled", s, w.Unsettled())
		}
		pass(2 * time.Second)
		w.said(t, "b unhealthy")
		if s, _ := w.State(w.all[1].Load); s.Fresh || w.Unsettled() != 0 {
			t.Errorf("state %+v, %d unsettled", s, w.Unsettled())
		}
		served := Endpoint{Address: "c", Load: lb.NewLoad(0), Serves: true}
		w.make("c", down)
		w.assign(t, append(w.all, served))
		if s, _ := w.State(served.Load); !s.Healthy || s.Fresh || s.Settled {
			t.Errorf("state %+v", s)
		}
		pass(3 * time.Second)
		w.said(t, "c unhealthy")
	})
}

// A configuration that changes times keeps the state and asks by the new ones, one that asks something else keeps it until
// results say otherwise, and one without a check forgets it. What does not change disturbs no probe.
func TestCheckerReconfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, settings(func(s *Settings) { s.Spec.Interval = time.Hour }), "a", "b")
		defer w.stop()
		w.make("a", down)
		pass(3 * time.Second)
		w.said(t, "a unhealthy")
		w.times("a")
		w.configure(t, settings(func(s *Settings) { s.Spec.Interval = 5 * time.Second }))
		if s, _ := w.State(w.all[0].Load); s.Healthy {
			t.Error("forgotten")
		}
		pass(5 * time.Second)
		if n := w.times("a"); n != 1 {
			t.Errorf("%d probes after an hour became 5 s", n)
		}
		other := settings(func(s *Settings) { s.Spec.Interval, s.Identity = 5*time.Second, "other" })
		w.configure(t, other)
		if s, _ := w.State(w.all[0].Load); s.Healthy || s.Settled || s.Fresh {
			t.Errorf("after another question: %+v", s)
		}
		w.make("a", nil)
		pass(2 * time.Second)
		w.said(t, "a healthy")
		// probes that take longer than the time between two reloads come to an end
		w.takes = 900 * time.Millisecond
		w.make("b", down)
		for range 40 {
			w.configure(t, settings(func(s *Settings) { s.Spec.Interval, s.Identity = 5*time.Second, "other" }))
			w.assign(t, w.all)
			pass(500 * time.Millisecond)
		}
		w.said(t, "b unhealthy")
		w.configure(t, nil)
		if _, checked := w.State(w.all[1].Load); checked {
			t.Error("known without a check")
		}
		w.times("a")
		pass(time.Minute)
		if n := w.times("a"); n != 0 {
			t.Errorf("%d probes without a check", n)
		}
	})
}

// Nobody asks an endpoint that is off or has gone, and what a probe finds that was under way then does not count: not even for
// the same address when it has come back.
func TestCheckerStaleResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, settings(func(s *Settings) { s.Spec.Unhealthy, s.Spec.StartInterval = 1, 2*time.Second }), "a", "b")
		defer w.stop()
		w.make("a", down)
		w.make("b", down)
		w.takes = 900 * time.Millisecond
		for w.times("a") == 0 {
			pass(10 * time.Millisecond)
		}
		again := []Endpoint{{Address: "a", Load: lb.NewLoad(0)}, {Address: "b", Load: w.all[1].Load, Off: true}}
		w.assign(t, w.all[1:])
		w.assign(t, again)
		w.make("a", nil)
		pass(3500 * time.Millisecond)
		w.said(t) // b was asked once at most, and that did not count
		if s, _ := w.State(again[0].Load); !s.Healthy {
			t.Errorf("state of the address that came back: %+v", s)
		}
		w.times("b")
		pass(time.Minute)
		if n := w.times("b"); n != 0 {
			t.Errorf("%d probes of an endpoint that is off", n)
		}
		again[1].Off = false
		w.assign(t, again)
		pass(3 * time.Second)
		w.said(t, "b unhealthy")
	})
}

// The probes of a thousand endpoints are spread over the interval, of those that are late at most so many are under way, and a
// probe that does not end is ended.
func TestCheckerSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 1000 {
			names = append(names, fmt.Sprint("e", i))
		}
		w := newWard(t, settings(func(s *Settings) { s.Spec.StartInterval, s.AtOnce = 0, 10 }), names...)
		defer w.stop()
		pass(30 * time.Second)
		slots, total := map[time.Duration]int{}, 0
		for _, n := range names {
			for _, at := range w.asked[n] {
				slots[at/(10*time.Millisecond)]++
				total++
			}
		}
		most := 0
		for _, n := range slots {
			most = max(most, n)
		}
		t.Logf("1000 endpoints, 10 s: %d probes in 30 s, at most %d in a slot of 10 ms", total, most)
		if total < 2999 || total > 3001 || most > 3 {
			t.Errorf("%d probes, at most %d in a slot", total, most)
		}
		w.mu.Lock()
		w.takes = time.Hour
		w.mu.Unlock()
		pass(time.Minute)
		if w.most != 10 {
			t.Errorf("%d probes at once, want 10", w.most)
		}
		if c := w.Counts(); c.Probes[Timeout] < 590 || c.Probes[Timeout] > 600 { // ten each second
			t.Errorf("counts %+v", c)
		}
	})
}

// What another process recorded is where endpoints begin, and is refused if it cannot be.
func TestCheckerInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newWard(t, settings(nil), "a", "b")
		old.make("a", down)
		pass(time.Minute)
		records := old.Records()
		old.stop()
		w := newWard(t, nil)
		defer w.stop()
		if err := w.Inherit(records); err != nil {
			t.Fatal(err)
		}
		w.all = []Endpoint{{Address: "a", Load: lb.NewLoad(0)}, {Address: "b", Load: lb.NewLoad(0)}, {Address: "c", Load: lb.NewLoad(0)}}
		w.configure(t, settings(func(s *Settings) { s.Spec.InitiallyHealthy = false }))
		w.assign(t, w.all)
		for i, want := range []string{"false true false", "true true false", "false false true"} {
			s, _ := w.State(w.all[i].Load)
			if got := fmt.Sprint(s.Healthy, s.Settled, s.Fresh); got != want {
				t.Errorf("endpoint %d: %s, want %s", i, got, want)
			}
		}
		if s, _ := w.State(w.all[0].Load); time.Since(s.Since) < 50*time.Second {
			t.Errorf("since %s", time.Since(s.Since))
		}
		for _, bad := range []time.Duration{-1, 1 << 62} {
			if err := w.Inherit([]Record{{Address: "a"}, {Address: "b", Age: bad}}); err == nil || !strings.Contains(err.Error(), `"b"`) {
				t.Errorf("age %d: %v", bad, err)
			}
		}
	})
}
