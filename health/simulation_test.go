package health

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The simulated upstream: 50 endpoints that serve one request at a time in 40 ms on average, 1250 a second together, and are
// offered 600. A request that waits longer than its timeout is still served: nobody tells the endpoint.
const (
	simEndpoints = 50
	simRate      = 600.0
	simService   = 40 * time.Millisecond
	simTimeout   = 500 * time.Millisecond // of an attempt
	simBacklog   = time.Second            // of work; more is answered with 503
	simAttempts  = 3
	simEnd       = 40 * time.Second
)

// strategy is what stands between client and upstream.
type strategy struct {
	name                                      string
	checks, retries, budget, outlier, breaker bool
}

var strategies = []strategy{
	{name: "nothing"},
	{name: "checks", checks: true},
	{name: "retries", retries: true},
	{name: "retry budget", retries: true, budget: true},
	{name: "outlier", outlier: true},
	{name: "breaker", breaker: true},
	{name: "all", checks: true, retries: true, budget: true, outlier: true, breaker: true},
}

// condition is how an endpoint is.
type condition struct {
	refuses, silent bool    // connections are refused, or nothing is ever heard
	slower          float64 // times
	errors          float64 // share answered with 500
}

// scenario says how each endpoint is at each time.
type scenario struct {
	name, story string
	at          func(e int, now time.Duration) condition
}

func between(now, from, to time.Duration) bool { return now >= from && now < to }

var scenarios = []scenario{
	{"crash", "10 of 50 endpoints refuse connections from 10s to 30s", func(e int, now time.Duration) condition {
		return condition{refuses: e < 10 && between(now, 10*time.Second, 30*time.Second)}
	}},
	{"brown-out", "10 of 50 are 50 times slower from 10s to 30s", func(e int, now time.Duration) condition {
		if e < 10 && between(now, 10*time.Second, 30*time.Second) {
			return condition{slower: 50}
		}
		return condition{}
	}},
	{"10 % errors", "10 of 50 fail a tenth of their requests from 5s on", func(e int, now time.Duration) condition {
		if e < 10 && now > 5*time.Second {
			return condition{errors: 0.1}
		}
		return condition{}
	}},
	{"flapping", "10 of 50 refuse for 2s of every 4s", func(e int, now time.Duration) condition {
		return condition{refuses: e < 10 && now/(2*time.Second)%2 == 1}
	}},
	{"partition", "15 of 50 cannot be heard from 10s to 30s", func(e int, now time.Duration) condition {
		return condition{silent: e < 15 && between(now, 10*time.Second, 30*time.Second)}
	}},
	{"deploy", "one after the other is away for 1s, then 4 times slower for 3s", func(e int, now time.Duration) condition {
		start := 5*time.Second + time.Duration(e)*500*time.Millisecond
		if between(now, start, start+time.Second) {
			return condition{refuses: true}
		}
		if between(now, start, start+4*time.Second) {
			return condition{slower: 4}
		}
		return condition{}
	}},
	{"overload", "all are 3 times slower from 10s to 15s: 420 a second, of 600", func(_ int, now time.Duration) condition {
		if between(now, 10*time.Second, 15*time.Second) {
			return condition{slower: 3}
		}
		return condition{}
	}},
	{"outage", "nobody is heard from 10s to 25s", func(_ int, now time.Duration) condition {
		return condition{silent: between(now, 10*time.Second, 25*time.Second)}
	}},
}

// request is a client's; it fails if its last attempt did.
type request struct {
	began    int64
	attempts int
	tried    [simAttempts]int
	permit   Permit
	retrying bool
}

const (
	evArrive = iota
	evAnswer
	evSecond
	evProbe
	evProbed
)

type simEvent struct {
	at       int64
	kind     int
	request  *request
	endpoint int
	outcome  Outcome
	probe    *Probe
}

type simEvents []simEvent

func (h simEvents) Len() int           { return len(h) }
func (h simEvents) Less(i, j int) bool { return h[i].at < h[j].at }
func (h simEvents) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *simEvents) Push(x any)        { *h = append(*h, x.(simEvent)) }
func (h *simEvents) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

type simulation struct {
	strategy strategy
	scenario scenario
	random   *rand.Rand
	now      int64
	events   simEvents
	next     int // round-robin
	busy     [simEndpoints]int64

	tallies  [simEndpoints]*Tally
	checks   [simEndpoints]*Check
	detector *Detector
	breaker  *Breaker
	budget   *Budget
	schedule *Schedule

	requests, failures, attempts int
	times                        []time.Duration
}

// simResult is what clients saw.
type simResult struct {
	errors float64 // percent
	p99    time.Duration
	load   float64 // attempts for each request
}

func simulate(t *testing.T, st strategy, sc scenario) simResult {
	t.Helper()
	s := &simulation{strategy: st, scenario: sc, random: rand.New(rand.NewPCG(7, 7))}
	outlier := DefaultOutlier()
	outlier.Interval, outlier.BaseEjectionTime, outlier.SuccessRateVolume = 5*time.Second, 5*time.Second, 50
	s.detector, _ = NewDetector(outlier, s.random)
	breaker := DefaultBreaker()
	breaker.Window, breaker.Cooldown = 5*time.Second, time.Second
	s.breaker, _ = NewBreaker(breaker)
	s.budget, _ = NewBudget(DefaultBudget(), 1)
	s.schedule, _ = NewSchedule(10, s.random)
	check := DefaultCheck()
	check.Interval, check.UnhealthyInterval = 2*time.Second, time.Second
	for e := range simEndpoints {
		s.tallies[e] = s.detector.Add(fmt.Sprint(e), 1)
		s.checks[e], _ = NewCheck(check, 0)
		if st.checks {
			s.schedule.Add(e, check.Interval, 0)
		}
	}
	s.at(0, simEvent{kind: evArrive})
	s.at(0, simEvent{kind: evProbe})
	s.at(time.Second, simEvent{kind: evSecond})
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(simEvent)
		s.now = e.at
		s.handle(e)
	}
	slices.Sort(s.times)
	if s.requests < int(simRate*simEnd.Seconds()*0.95) || len(s.times) != s.requests || s.budget.Active() != 0 || s.budget.Retries() != 0 {
		t.Fatalf("%d requests, %d ended, %d active, %d retries", s.requests, len(s.times), s.budget.Active(), s.budget.Retries())
	}
	return simResult{100 * float64(s.failures) / float64(s.requests), s.times[len(s.times)*99/100], float64(s.attempts) / float64(s.requests)}
}

func (s *simulation) at(in time.Duration, e simEvent) {
	e.at = s.now + int64(in)
	heap.Push(&s.events, e)
}

func (s *simulation) handle(e simEvent) {
	over := s.now >= int64(simEnd)
	switch e.kind {
	case evArrive:
		if !over {
			s.at(time.Duration(s.random.ExpFloat64()/simRate*1e9), simEvent{kind: evArrive})
			s.requests++
			s.budget.Begin(0)
			s.try(&request{began: s.now})
		}
	case evAnswer:
		s.answer(e)
	case evSecond:
		if !over {
			if s.now/int64(time.Second)%5 == 0 {
				s.detector.Interval(s.now)
			}
			s.at(time.Second, simEvent{kind: evSecond})
		}
	case evProbe:
		for p, at := s.schedule.Next(s.now); !over; p, at = s.schedule.Next(s.now) {
			if p == nil {
				if at < int64(simEnd) {
					s.at(time.Duration(at-s.now), simEvent{kind: evProbe})
				}
				break
			}
			took, o := s.serve(p.ID)
			s.at(took, simEvent{kind: evProbed, endpoint: p.ID, outcome: o, probe: p})
		}
	case evProbed:
		c := s.checks[e.endpoint]
		c.Result(e.outcome == Success, s.now)
		s.detector.Checked(s.tallies[e.endpoint], e.outcome == Success, c.Healthy(), s.now)
		s.schedule.Done(e.probe, c.Interval(), c.Jitter(), s.now)
		s.at(0, simEvent{kind: evProbe})
	}
}

// serve gives when and how an endpoint answers what is sent to it now.
func (s *simulation) serve(e int) (time.Duration, Outcome) {
	is := s.scenario.at(e, time.Duration(s.now))
	switch {
	case is.refuses:
		return time.Millisecond, ConnectFailed
	case is.silent:
		return simTimeout, Timeout
	}
	s.busy[e] = max(s.busy[e], s.now)
	if s.busy[e]-s.now > int64(simBacklog) {
		return time.Millisecond, GatewayError
	}
	s.busy[e] += int64(float64(simService) * max(is.slower, 1) * (0.5 + s.random.Float64()))
	took := time.Duration(s.busy[e] - s.now)
	switch {
	case took > simTimeout:
		return simTimeout, Timeout
	case s.random.Float64() < is.errors:
		return took, ServerError
	}
	return took, Success
}

// pick goes round over the endpoints that are in service and were not tried; if there is none, over all.
func (s *simulation) pick(r *request) int {
	for range simEndpoints {
		s.next = (s.next + 1) % simEndpoints
		if e := s.next; (!s.strategy.checks || s.checks[e].Healthy()) && !s.tallies[e].Ejected() && !slices.Contains(r.tried[:r.attempts], e) {
			return e
		}
	}
	s.next = (s.next + 1) % simEndpoints
	return s.next
}

func (s *simulation) try(r *request) {
	if s.strategy.breaker {
		permit, ok := s.breaker.Allow(s.now)
		if !ok {
			s.end(r, true)
			return
		}
		r.permit = permit
	}
	e := s.pick(r)
	r.tried[r.attempts] = e
	r.attempts++
	s.attempts++
	took, o := s.serve(e)
	s.at(took, simEvent{kind: evAnswer, request: r, endpoint: e, outcome: o})
}

func (s *simulation) answer(e simEvent) {
	r := e.request
	if s.strategy.outlier {
		s.detector.Triggered(s.tallies[e.endpoint], s.tallies[e.endpoint].Report(0, e.outcome), s.now)
	}
	if s.strategy.breaker {
		s.breaker.Report(r.permit, e.outcome != Success, 0, s.now)
	}
	if r.retrying {
		s.budget.EndRetry()
		r.retrying = false
	}
	if e.outcome == Success || !s.strategy.retries || r.attempts == simAttempts {
		s.end(r, e.outcome != Success)
		return
	}
	if s.strategy.budget {
		if !s.budget.Retry(0) {
			s.end(r, true)
			return
		}
		r.retrying = true
	}
	s.try(r)
}

func (s *simulation) end(r *request, failed bool) {
	if r.retrying {
		s.budget.EndRetry()
	}
	s.budget.End(0)
	s.times = append(s.times, time.Duration(s.now-r.began))
	if failed {
		s.failures++
	}
}

// What clients see of each failure, with each answer to it. The table is printed by go test -v -run Simulation.
func TestSimulation(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "\nerrors %% / p99 ms / attempts a request\n%-12s", "")
	for _, st := range strategies {
		fmt.Fprintf(&table, "%19s", st.name)
	}
	results := map[string]map[string]simResult{}
	for _, sc := range scenarios {
		results[sc.name] = map[string]simResult{}
		fmt.Fprintf(&table, "\n%-12s", sc.name)
		for _, st := range strategies {
			r := simulate(t, st, sc)
			results[sc.name][st.name] = r
			fmt.Fprintf(&table, "%8.3f %5d %4.2f", r.errors, r.p99.Milliseconds(), r.load)
		}
	}
	for _, sc := range scenarios {
		fmt.Fprintf(&table, "\n%-12s %s", sc.name, sc.story)
	}
	t.Log(table.String())

	// less says that with one strategy there are at most so many times the errors of another.
	less := func(scenario, with, than string, times float64) {
		t.Helper()
		if a, b := results[scenario][with].errors, results[scenario][than].errors; a > b*times {
			t.Errorf("%s: %.3f %% errors with %s, %.3f %% with %s: want at most %v times", scenario, a, with, b, than, times)
		}
	}
	for _, s := range []string{"crash", "brown-out", "partition"} {
		less(s, "checks", "nothing", 0.4)
		less(s, "outlier", "nothing", 0.4)
		less(s, "all", "outlier", 0.5)
	}
	for _, s := range []string{"10 % errors", "flapping", "deploy"} {
		less(s, "outlier", "nothing", 0.95)
		less(s, "retry budget", "nothing", 0.5)
		less(s, "all", "nothing", 0.1)
	}
	less("overload", "retry budget", "retries", 0.6)
	less("overload", "all", "retries", 0.6)
	if with, without := results["overload"]["retry budget"].load, results["overload"]["retries"].load; with > 1.3 || without < 1.5 {
		t.Errorf("overload: %.2f attempts a request with a budget, %.2f without", with, without)
	}
	if with, without := results["outage"]["breaker"].load, results["outage"]["nothing"].load; with > 0.8*without {
		t.Errorf("outage: %.2f attempts a request with a breaker, %.2f without", with, without)
	}
}
