package lb

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// simulation is a gateway of some loops before endpoints with a few workers and a queue each, in virtual time.
type simulation struct {
	random  *rand.Rand
	pickers []Picker
	servers map[*Endpoint]*server
	events  events
	now     int64

	latencies []int64
	failed    int
}

type server struct {
	service time.Duration // mean, exponential
	fails   bool
	free    int   // workers
	waiting []job // for one
	served  int
}

type job struct {
	endpoint *Endpoint
	begun    int64
}

type event struct {
	at  int64
	run func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const (
	simulatedWorkers = 4
	simulatedLoops   = 4
)

func newSimulation(spec Spec, es []*Endpoint) *simulation {
	s := &simulation{random: rand.New(rand.NewPCG(11, 12)), servers: map[*Endpoint]*server{}}
	set := NewSet(&spec, es, 0)
	for i := range simulatedLoops {
		s.pickers = append(s.pickers, NewPicker(set, uint64(i), nil))
	}
	for _, e := range es {
		s.servers[e] = &server{service: 10 * time.Millisecond, free: simulatedWorkers}
	}
	return s
}

func (s *simulation) after(mean time.Duration, run func()) {
	heap.Push(&s.events, event{s.now + int64(s.random.ExpFloat64()*float64(mean)), run})
}

// run lets requests arrive at random, at a mean rate a second, for a time, and waits until all have ended.
func (s *simulation) run(rate float64, length time.Duration) {
	var arrive func()
	arrive = func() {
		if s.now < int64(length) {
			s.request()
			s.after(time.Duration(float64(time.Second)/rate), arrive)
		}
	}
	arrive()
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.run()
	}
}

func (s *simulation) request() {
	a := Attempt{Now: s.now, Key: s.random.Uint64(), Keyed: true}
	e := s.pickers[s.random.IntN(len(s.pickers))].Pick(&a)
	e.Load.Begin()
	srv := s.servers[e]
	srv.served++
	if j := (job{e, s.now}); srv.free > 0 {
		srv.free--
		s.serve(j)
	} else {
		srv.waiting = append(srv.waiting, j)
	}
}

func (s *simulation) serve(j job) {
	srv := s.servers[j.endpoint]
	s.after(srv.service, func() {
		j.endpoint.Load.End(s.now, s.now-j.begun, srv.fails)
		s.latencies = append(s.latencies, s.now-j.begun)
		if srv.fails {
			s.failed++
		}
		if len(srv.waiting) > 0 {
			next := srv.waiting[0]
			srv.waiting = srv.waiting[1:]
			s.serve(next)
			return
		}
		srv.free++
	})
}

func (s *simulation) percentile(p float64) time.Duration {
	slices.Sort(s.latencies)
	return time.Duration(s.latencies[int(float64(len(s.latencies)-1)*p)])
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// contestants are what a simulation compares.
func contestants() (names []string, specs map[string]Spec) {
	specs = map[string]Spec{}
	add := func(name string, s Spec) {
		names = append(names, name)
		specs[name] = s
	}
	for _, a := range []Algorithm{RoundRobin, Random, Maglev, LeastRequest, PeakEWMA} {
		add(a.String(), Defaults(a))
	}
	bounded, scan := Defaults(Maglev), Defaults(LeastRequest)
	bounded.LoadFactor, scan.FullScan = 1.25, true
	add("maglev bounded", bounded)
	add("full scan", scan)
	return names, specs
}

// One of ten endpoints is ten times slower than the others. Who shares evenly drowns it, and every tenth client with it.
func TestSimulationOneSlowEndpoint(t *testing.T) {
	names, specs := contestants()
	p99 := map[string]time.Duration{}
	table := &strings.Builder{}
	fmt.Fprintf(table, "%-16s %10s %10s %12s\n", "one slow of ten", "p50", "p99", "slow's share")
	for _, name := range names {
		es := alike(10)
		s := newSimulation(specs[name], es)
		s.servers[es[3]].service *= 10
		s.run(2400, 10*time.Second)
		p99[name] = s.percentile(0.99)
		fmt.Fprintf(table, "%-16s %8.2fms %8.0fms %11.1f%%\n", name, milliseconds(s.percentile(0.5)), milliseconds(p99[name]),
			100*float64(s.servers[es[3]].served)/float64(len(s.latencies)))
	}
	t.Log("\n" + table.String())
	for _, o := range [][2]string{
		{"least_request", "round_robin"}, {"least_request", "random"}, {"full scan", "round_robin"},
		{"peak_ewma", "least_request"}, {"maglev bounded", "maglev"},
	} {
		if p99[o[0]] >= p99[o[1]] {
			t.Errorf("p99 of %s is %v, not below %v of %s", o[0], p99[o[0]], p99[o[1]], o[1])
		}
	}
}

// One of ten endpoints fails at once. It always has the fewest requests in flight and the shortest answers, so whoever goes by
// these alone sends it everything.
func TestSimulationOneFailsFast(t *testing.T) {
	names, specs := contestants()
	naive := Defaults(PeakEWMA)
	naive.Penalty = 0
	specs["no penalty"] = naive
	failed := map[string]float64{}
	table := &strings.Builder{}
	fmt.Fprintf(table, "%-16s %10s\n", "one fails fast", "failed")
	for _, name := range append(names, "no penalty") {
		es := alike(10)
		s := newSimulation(specs[name], es)
		s.servers[es[3]].service = 100 * time.Microsecond
		s.servers[es[3]].fails = true
		s.run(2400, 10*time.Second)
		failed[name] = float64(s.failed) / float64(len(s.latencies))
		fmt.Fprintf(table, "%-16s %9.2f%%\n", name, 100*failed[name])
	}
	t.Log("\n" + table.String())
	if failed["peak_ewma"] >= failed["round_robin"]/10 {
		t.Errorf("peak_ewma failed %.4f, round_robin %.4f: not a tenth of it", failed["peak_ewma"], failed["round_robin"])
	}
	if failed["no penalty"] <= failed["round_robin"] {
		t.Errorf("without the penalty %.4f failed: the simulation shows nothing", failed["no penalty"])
	}
}
