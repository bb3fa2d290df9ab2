package health

import (
	"math/rand/v2"
	"slices"
	"time"
)

// OutlierSpec is when endpoints are ejected for what requests came to. Every setting has the name and the meaning that it has
// in Envoy (config.cluster.v3.OutlierDetection), except where noted.
type OutlierSpec struct {
	Consecutive5xx            int  // failures in a row of any kind, 0..10000; 0: never by them
	ConsecutiveGatewayFailure int  // of 502, 503, 504 and, unless split, failures of local origin, 0..10000; 0: never
	ConsecutiveLocalOrigin    int  // consecutive_local_origin_failure, 0..10000; 0: never. Only if split
	SplitLocalOrigin          bool // split_external_local_origin_errors: outcomes without an answer are judged apart

	Interval              time.Duration // between analyses, 100ms..1h
	BaseEjectionTime      time.Duration // 100ms..24h
	MaxEjectionTime       time.Duration // BaseEjectionTime..24h
	MaxEjectionTimeJitter time.Duration // 0..1h
	MaxEjectionPercent    int           // 0..100 of all endpoints
	AlwaysEjectOne        bool          // always_eject_one_host: one may be ejected whatever MaxEjectionPercent says
	KeepLast              bool          // ours: the last endpoint that is neither ejected nor unhealthy stays. Above AlwaysEjectOne
	CheckUnejects         bool          // successful_active_health_check_uneject_host

	SuccessRateMinHosts int // success_rate_minimum_hosts, 1..100000
	SuccessRateVolume   int // success_rate_request_volume, 1..1e9 requests of an endpoint in an interval
	SuccessRateStdev    int // success_rate_stdev_factor: thousandths of a standard deviation below the mean, 0..100000

	FailurePercentThreshold int // failure_percentage_threshold, 1..100
	FailurePercentMinHosts  int // failure_percentage_minimum_hosts, 1..100000
	FailurePercentVolume    int // failure_percentage_request_volume, 1..1e9

	Enforcing [Causes]int // enforcing_*: the chance in percent that a detection ejects
}

// Cause is why an endpoint is an outlier.
type Cause uint8

// Causes is their number. Those of local origin come up only if they are split from others.
const (
	CauseConsecutive5xx Cause = iota
	CauseConsecutiveGatewayFailure
	CauseConsecutiveLocalOrigin
	CauseSuccessRate
	CauseSuccessRateLocalOrigin
	CauseFailurePercent
	CauseFailurePercentLocalOrigin
	Causes = iota
)

// String is the setting that enforces the cause, less its "enforcing_".
func (c Cause) String() string {
	return [...]string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure", "success_rate",
		"local_origin_success_rate", "failure_percentage", "failure_percentage_local_origin"}[c]
}

// DefaultOutlier is what `outlier: on` stands for: Envoy's defaults, but for an interval of 30 s, at most 50 % ejected, and never
// the last.
func DefaultOutlier() OutlierSpec {
	return OutlierSpec{
		Consecutive5xx: 5, ConsecutiveGatewayFailure: 5, ConsecutiveLocalOrigin: 5,
		Interval: 30 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionTime: 5 * time.Minute,
		MaxEjectionPercent: 50, KeepLast: true, CheckUnejects: true,
		SuccessRateMinHosts: 5, SuccessRateVolume: 100, SuccessRateStdev: 1900,
		FailurePercentThreshold: 85, FailurePercentMinHosts: 5, FailurePercentVolume: 50,
		Enforcing: [Causes]int{CauseConsecutive5xx: 100, CauseConsecutiveLocalOrigin: 100,
			CauseSuccessRate: 100, CauseSuccessRateLocalOrigin: 100},
	}
}

// Validate gives a *SpecError for the first setting that is out of its range.
func (s *OutlierSpec) Validate() error {
	const maxRun, maxHosts, maxVolume = 10_000, 100_000, 1_000_000_000
	var r ranges
	r.integer("consecutive_5xx", s.Consecutive5xx, 0, maxRun)
	r.integer("consecutive_gateway_failure", s.ConsecutiveGatewayFailure, 0, maxRun)
	r.integer("consecutive_local_origin_failure", s.ConsecutiveLocalOrigin, 0, maxRun)
	r.duration("interval", s.Interval, 100*time.Millisecond, time.Hour)
	r.duration("base_ejection_time", s.BaseEjectionTime, 100*time.Millisecond, 24*time.Hour)
	if r.err == nil {
		r.duration("max_ejection_time", s.MaxEjectionTime, s.BaseEjectionTime, 24*time.Hour)
	}
	r.duration("max_ejection_time_jitter", s.MaxEjectionTimeJitter, 0, time.Hour)
	r.integer("max_ejection_percent", s.MaxEjectionPercent, 0, 100)
	r.integer("success_rate_minimum_hosts", s.SuccessRateMinHosts, 1, maxHosts)
	r.integer("success_rate_request_volume", s.SuccessRateVolume, 1, maxVolume)
	r.integer("success_rate_stdev_factor", s.SuccessRateStdev, 0, 100_000)
	r.integer("failure_percentage_threshold", s.FailurePercentThreshold, 1, 100)
	r.integer("failure_percentage_minimum_hosts", s.FailurePercentMinHosts, 1, maxHosts)
	r.integer("failure_percentage_request_volume", s.FailurePercentVolume, 1, maxVolume)
	for c, percent := range s.Enforcing {
		r.integer("enforcing_"+Cause(c).String(), percent, 0, 100)
	}
	return r.err
}

// Action is what a Detector did with an endpoint.
type Action uint8

// Ejected: it gets no requests until Returned. Noted: an outlier that chance (Enforcing) let stay. Spared: one that stays
// because too many are ejected.
const (
	Ejected Action = iota
	Noted
	Spared
	Returned
)

func (a Action) String() string { return [...]string{"ejected", "noted", "spared", "returned"}[a] }

// Event is one thing that a Detector did, with the figures it rests on.
type Event struct {
	Tally  *Tally
	Action Action
	Cause  Cause         // for Returned, that of the ejection
	For    time.Duration // Ejected: how long, unless a check brings it back. It ends with the first analysis after
	// Of success rates and failure percentages: the endpoint's success rate in percent and the rate below which it is an outlier.
	Rate, Threshold float64
}

// DetectorStats are the counts of a Detector since its start.
type DetectorStats struct {
	Detected, Enforced [Causes]uint64
	Spared             uint64 // Envoy's ejections_overflow
	Active             int    // endpoints that are ejected now
}

// Detector ejects endpoints of one upstream that fail more requests than they should. It belongs to one goroutine; loops report
// to its Tallies. It takes 128 bytes for each endpoint and loop, and 300 for each
// endpoint.
//
// Where Envoy leaves an order to chance, endpoints of the lowest success rate are ejected first.
type Detector struct {
	spec    OutlierSpec
	random  rand.Source
	tallies []*Tally
	stats   DetectorStats
}

// NewDetector gives a detector without endpoints. The error is a *SpecError.
func NewDetector(spec OutlierSpec, random rand.Source) (*Detector, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return &Detector{spec: spec, random: random}, nil
}

// Add begins to watch an endpoint to which `loops` loops send. Name is for logs.
func (d *Detector) Add(name string, loops int) *Tally {
	t := &Tally{Name: name, split: d.spec.SplitLocalOrigin, cells: make([]cell, loops)}
	t.runs[run5xx].limit = uint32(d.spec.Consecutive5xx)
	t.runs[runGateway].limit = uint32(d.spec.ConsecutiveGatewayFailure)
	t.runs[runLocal].limit = uint32(d.spec.ConsecutiveLocalOrigin)
	d.tallies = append(d.tallies, t)
	return t
}

// Remove ends the watch. What is still reported to t changes nothing.
func (d *Detector) Remove(t *Tally) {
	if t.removed {
		return
	}
	i := slices.Index(d.tallies, t)
	d.tallies = slices.Delete(d.tallies, i, i+1)
	t.removed = true
	if t.ejected {
		d.stats.Active--
	}
}

// Stats gives the counts.
func (d *Detector) Stats() DetectorStats { return d.stats }

// Triggered judges an endpoint of which Report said that it failed so many requests in a row. There are no events if it is
// ejected already or removed. It may come late; until it does the run is not reported again.
func (d *Detector) Triggered(t *Tally, trigger Trigger, now int64) (events []Event) {
	for i, c := range runCauses {
		if trigger&(1<<i) == 0 || t.ejected || t.removed {
			continue
		}
		events = append(events, d.detect(t, c, now))
		t.runs[i].failures.Store(0)
	}
	return events
}

// Checked tells the state of an endpoint after an active check of it. An endpoint that is ejected comes back at once if the
// check passed and it is healthy; the time by which ejections grow is kept.
func (d *Detector) Checked(t *Tally, passed, healthy bool, now int64) (Event, bool) {
	t.unhealthy = !healthy
	if !passed || !healthy || !t.ejected || t.removed || !d.spec.CheckUnejects {
		return Event{}, false
	}
	return d.bringBack(t, now), true
}

// detect counts an outlier and ejects it if it may.
func (d *Detector) detect(t *Tally, c Cause, now int64) Event {
	d.stats.Detected[c]++
	e := Event{Tally: t, Action: Spared, Cause: c}
	if !d.mayEject(t) {
		d.stats.Spared++
		return e
	}
	if d.random.Uint64()%100 >= uint64(d.spec.Enforcing[c]) {
		e.Action = Noted
		return e
	}
	d.stats.Enforced[c]++
	d.stats.Active++
	t.ejected, t.cause, t.ejectedAt = true, c, now
	t.jitter = upTo(d.random, d.spec.MaxEjectionTimeJitter)
	if t.backoff*int64(d.spec.BaseEjectionTime) < int64(d.spec.MaxEjectionTime+d.spec.BaseEjectionTime) {
		t.backoff++
	}
	e.Action, e.For = Ejected, time.Duration(d.ejectionTime(t))
	return e
}

// mayEject says whether one more may be ejected, and it this one.
func (d *Detector) mayEject(t *Tally) bool {
	serves := func(o *Tally) bool { return o != t && !o.ejected && !o.unhealthy }
	if d.spec.KeepLast && !t.unhealthy && !slices.ContainsFunc(d.tallies, serves) {
		return false
	}
	if d.spec.AlwaysEjectOne && d.stats.Active == 0 {
		return true
	}
	return 100*(d.stats.Active+1) <= d.spec.MaxEjectionPercent*len(d.tallies)
}

func (d *Detector) ejectionTime(t *Tally) int64 {
	return min(t.backoff*int64(d.spec.BaseEjectionTime), int64(d.spec.MaxEjectionTime)) + t.jitter
}

// Left is how long an endpoint that is ejected stays so, unless a check brings it back; it ends with the first analysis after. 0: it is
// not ejected.
func (d *Detector) Left(t *Tally, now int64) time.Duration {
	if !t.ejected {
		return 0
	}
	return time.Duration(max(t.ejectedAt+d.ejectionTime(t)-now, 0))
}

// bringBack ends an ejection. Runs begin anew, so that one that was nearly full does not eject again after a few failures.
func (d *Detector) bringBack(t *Tally, now int64) Event {
	d.stats.Active--
	t.ejected, t.wasEjected, t.returnedAt = false, true, now
	for i := range t.runs {
		t.runs[i].failures.Store(0)
	}
	return Event{Tally: t, Action: Returned, Cause: t.cause}
}
