package health

import "sync/atomic"

// Trigger says that an endpoint has just failed so many requests in a row: a set, for one failure may fill two runs.
type Trigger uint8

// NoTrigger, the empty set, is what nearly every report gives. What is not empty goes to Detector.Triggered.
const (
	NoTrigger             Trigger = 0
	Trigger5xx            Trigger = 1 << run5xx
	TriggerGatewayFailure Trigger = 1 << runGateway
	TriggerLocalOrigin    Trigger = 1 << runLocal
)

// The runs of a Tally, in the order in which they are judged: Envoy's.
const (
	runGateway = iota
	run5xx
	runLocal
	runCount
)

// runCauses are the causes for which full runs eject.
var runCauses = [runCount]Cause{runGateway: CauseConsecutiveGatewayFailure, run5xx: CauseConsecutive5xx, runLocal: CauseConsecutiveLocalOrigin}

// Tally counts what requests to one endpoint came to. It lives as long as the endpoint, and Report may be called until then.
//
// Two things are counted, in two ways. Totals, for the analysis at each interval, are kept for each loop apart and never
// reset: they are exact, and a request is one of them, so that none is seen as half. They are atomic all the same, for the detector reads them from another goroutine: 6 ns a report
// instead of the 1 ns that collecting them on their loops would cost. Failures in a row are one count for all loops, as in
// Envoy, because "in a row" is a matter of order: the order is that in which loops report. A success only reads it unless
// there was a failure, so that loops do not contend while all is well. Bound: where reports of n loops meet in one instant,
// up to n-1 failures may be counted before a success that came first, or forgotten with one that came after.
type Tally struct {
	Name string // for logs

	split bool
	runs  [runCount]run
	_     [64]byte // what loops write when requests fail is kept off what they read
	cells []cell

	// The Detector's.
	ejected, wasEjected, unhealthy, removed bool
	cause                                   Cause
	backoff                                 int64 // ejection times that the next ejection lasts, less one
	ejectedAt, returnedAt, jitter           int64
	seen                                    [2]totals // counted by earlier intervals; external and local
	interval                                [2]totals // counted by the interval that is analysed
}

// run counts failures in a row.
type run struct {
	failures atomic.Uint32
	limit    uint32 // 0: none
}

// cell is what one loop counts. Its size keeps two of them off one cache line, and off one that the processor fetches beside it.
type cell struct {
	external, local atomicTotals
	_               [96]byte
}

type atomicTotals struct{ successes, failures atomic.Uint64 }

type totals struct{ successes, failures uint64 }

// Report counts what a request came to. loop is the caller's, from 0. A trigger that it gives goes to Detector.Triggered, on the
// detector's goroutine.
//
// Outcomes that are split count as Envoy's do, but for one thing: there a connection made is a success of its own, before the
// outcome of the request, so that an endpoint which accepts and then says nothing never fails twice in a row. Here a request
// counts once, by what it came to.
func (t *Tally) Report(loop int, o Outcome) Trigger {
	c := &t.cells[loop]
	if t.split {
		if o.local() {
			c.local.failures.Add(1)
			if t.runs[runLocal].fail() {
				return TriggerLocalOrigin
			}
			return NoTrigger
		}
		c.local.successes.Add(1)
		t.runs[runLocal].end()
	}
	if o == Success {
		c.external.successes.Add(1)
		t.runs[run5xx].end()
		t.runs[runGateway].end()
		return NoTrigger
	}
	c.external.failures.Add(1)
	trigger := NoTrigger
	if o == ServerError {
		t.runs[runGateway].end()
	} else if t.runs[runGateway].fail() {
		trigger |= TriggerGatewayFailure
	}
	if t.runs[run5xx].fail() {
		trigger |= Trigger5xx
	}
	return trigger
}

// Ejected says whether the endpoint is ejected. It is for the detector's goroutine.
func (t *Tally) Ejected() bool { return t.ejected }

func (r *run) end() {
	if r.failures.Load() != 0 {
		r.failures.Store(0)
	}
}

// fail counts a failure, and says whether the run is full. It says so once, by the one that filled it.
func (r *run) fail() bool { return r.failures.Add(1) == r.limit && r.limit != 0 }

// count brings what an interval counted from the cells.
func (t *Tally) count() {
	var now [2]totals
	for i := range t.cells {
		for side, c := range []*atomicTotals{&t.cells[i].external, &t.cells[i].local} {
			now[side].successes += c.successes.Load()
			now[side].failures += c.failures.Load()
		}
	}
	for i, seen := range t.seen {
		t.interval[i] = totals{now[i].successes - seen.successes, now[i].failures - seen.failures}
	}
	t.seen = now
}

func (t *totals) requests() uint64 { return t.successes + t.failures }

// rate is the success rate in percent of an interval that had requests.
func (t *totals) rate() float64 { return 100 * float64(t.successes) / float64(t.requests()) }
