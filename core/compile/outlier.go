package compile

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// outliers are the endpoints of a discovered upstream as far as what requests came to is concerned. What is found under one spec goes
// over to the next, and an endpoint keeps it as long as it keeps its Load. All but wake needs the lock of the upstream.
type outliers struct {
	log      *slog.Logger
	wake     chan struct{}    // somebody has triggers; one is enough for all
	detector *health.Detector // nil: nobody looks for outliers
	spec     health.OutlierSpec
	base     health.DetectorStats // what detectors before this one have counted
	watched  map[*lb.Load]*watched
	heirs    map[string]health.EjectionRecord // by address: of the process before, until the first endpoints are known
}

// watched is an endpoint that the detector knows.
type watched struct {
	watch    *upstream.Watch
	endpoint *upstream.Endpoint
	told     int64 // when it was last said that it fails and is not ejected; 0: never
}

func (o *outliers) init() {
	o.wake, o.watched = make(chan struct{}, 1), map[*lb.Load]*watched{}
}

// outlierSpec is what health wants of o.
func outlierSpec(o *config.Outlier) health.OutlierSpec {
	s := health.OutlierSpec{
		Consecutive5xx:            o.Consecutive5xx,
		ConsecutiveGatewayFailure: o.ConsecutiveGatewayFailure,
		ConsecutiveLocalOrigin:    o.ConsecutiveLocalOrigin,
		SplitLocalOrigin:          o.SplitLocalOrigin,
		Interval:                  o.Interval,
		BaseEjectionTime:          o.BaseEjectionTime,
		MaxEjectionTime:           o.MaxEjectionTime,
		MaxEjectionTimeJitter:     o.MaxEjectionTimeJitter,
		MaxEjectionPercent:        o.MaxEjectionPercent,
		AlwaysEjectOne:            o.AlwaysEjectOne,
		KeepLast:                  o.KeepLast,
		CheckUnejects:             o.CheckUnejects,
		SuccessRateMinHosts:       o.SuccessRateMinHosts,
		SuccessRateVolume:         o.SuccessRateVolume,
		SuccessRateStdev:          o.SuccessRateStdev,
		FailurePercentThreshold:   o.FailurePercentThreshold,
		FailurePercentMinHosts:    o.FailurePercentMinHosts,
		FailurePercentVolume:      o.FailurePercentVolume,
	}
	for c := range s.Enforcing {
		s.Enforcing[c] = o.Enforcing[c]
	}
	return s
}

// detect puts a spec in force, nil for none. One that stays has its detector go on.
func (d *discovered) detect(spec *config.Outlier) {
	o, now := &d.outliers, d.upstream.Clock()
	if spec != nil && o.detector != nil && o.spec == outlierSpec(spec) {
		return
	}
	before := map[*lb.Load]health.EjectionRecord{}
	for load, w := range o.watched {
		if r := o.detector.Record(w.watch.Tally, now); spec != nil {
			before[load] = r
		}
		w.endpoint.Watch(nil)
		load.Clear(lb.Ejected, now) // who remains so is raised again before anybody looks
	}
	if o.detector != nil {
		o.base = o.total()
	}
	endpoints := o.watched
	o.detector, o.watched = nil, map[*lb.Load]*watched{}
	if spec == nil {
		o.heirs = nil
		return
	}
	o.spec, o.log = outlierSpec(spec), d.registry.log.With("upstream", d.upstream.Name)
	detector, err := health.NewDetector(o.spec, source())
	if err != nil {
		panic("BUG: compile: outlier: " + err.Error()) // the grammar lets through what health takes
	}
	o.detector = detector
	for load, w := range endpoints {
		o.add(d.upstream, w.endpoint, len(d.registry.workers))
		o.restore(d.upstream, o.watched[load], before[load])
	}
}

// source is chance for one owner.
func source() rand.Source { return rand.NewPCG(rand.Uint64(), rand.Uint64()) }

// total is what all detectors have counted, and how many endpoints are ejected now.
func (o *outliers) total() (s health.DetectorStats) {
	if o.detector != nil {
		s = o.detector.Stats()
	}
	for c := range s.Detected {
		s.Detected[c] += o.base.Detected[c]
		s.Enforced[c] += o.base.Enforced[c]
	}
	s.Spared += o.base.Spared
	return s
}

// follow makes the detector know the endpoints of u, which have changed, and says whether it has ejected one for what the process before
// knew of it.
func (o *outliers) follow(u *upstream.Upstream, loops int) (changed bool) {
	if o.detector == nil {
		return false
	}
	gone := maps.Clone(o.watched)
	for _, e := range u.Endpoints() {
		delete(gone, e.Load)
		if w := o.watched[e.Load]; w != nil { // it may have another endpoint
			w.endpoint = e
			e.Watch(w.watch)
			continue
		}
		o.add(u, e, loops)
		if r, ok := o.heirs[e.Address]; ok {
			changed = o.restore(u, o.watched[e.Load], r) || changed
		}
	}
	o.heirs = nil
	for load, w := range gone {
		o.detector.Remove(w.watch.Tally)
		w.endpoint.Watch(nil)
		delete(o.watched, load)
	}
	return changed
}

func (o *outliers) add(u *upstream.Upstream, e *upstream.Endpoint, loops int) {
	w := &watched{watch: upstream.NewWatch(o.detector.Add(e.Address, loops), o.poke), endpoint: e}
	o.watched[e.Load] = w
	e.Watch(w.watch)
}

// poke is called on loops.
func (o *outliers) poke() {
	select {
	case o.wake <- struct{}{}:
	default: // who is woken looks at all endpoints
	}
}

// restore gives an endpoint that was just added the state that it had, and says whether it is ejected by that.
func (o *outliers) restore(u *upstream.Upstream, w *watched, r health.EjectionRecord) (ejected bool) {
	if err := o.detector.Restore(w.watch.Tally, r, u.Clock()); err != nil {
		o.log.Warn("state of an endpoint is ignored", "endpoint", w.endpoint.Address, "error", err)
		return false
	}
	return r.Ejected && u.Eject(w.endpoint, true)
}

// judge is a background of one configuration: it judges when loops say so, and at each interval.
func (d *discovered) judge(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			d.outliers.poke() // a trigger that has come meanwhile is for who follows
			return
		case <-d.outliers.wake:
			d.changeIf(ctx, d.triggered)
		case <-t.C:
			d.changeIf(ctx, func() bool {
				d.outliers.note()
				return d.act(d.outliers.detector.Interval(d.upstream.Clock()))
			})
		}
	}
}

// triggered judges the endpoints that have failed too often in a row, by address, so that chance has no part in which of several is
// spared.
func (d *discovered) triggered() (changed bool) {
	o := &d.outliers
	type failing struct {
		*watched
		trigger health.Trigger
	}
	var all []failing
	for _, w := range o.watched {
		if t := w.watch.Triggers(); t != health.NoTrigger {
			all = append(all, failing{w, t})
		}
	}
	slices.SortFunc(all, func(a, b failing) int { return strings.Compare(a.endpoint.Address, b.endpoint.Address) })
	if len(all) > 0 {
		o.note()
	}
	for _, f := range all {
		changed = d.act(o.detector.Triggered(f.watch.Tally, f.trigger, d.upstream.Clock())) || changed
	}
	return changed
}

// note tells the detector which endpoints get nothing anyway, so that it does not take them for those that serve while the last
// that does is ejected.
func (o *outliers) note() {
	for load, w := range o.watched {
		weight := load.Weight()
		if weight < 0 {
			weight = w.endpoint.Described().Weight
		}
		o.detector.Checked(w.watch.Tally, false, load.Flags()&^lb.Ejected == 0 && weight > 0, 0)
	}
}

// passed tells of an active check of an endpoint, by its Load, that has passed, after which the endpoint is healthy: one that is
// ejected may come back by that. It is to be called by changeIf or change, whichever flags the check itself has changed.
func (d *discovered) passed(load *lb.Load) (changed bool) {
	o := &d.outliers
	w := o.watched[load]
	if w == nil || o.detector == nil {
		return false
	}
	e, back := o.detector.Checked(w.watch.Tally, true, true, d.upstream.Clock())
	return back && d.act([]health.Event{e})
}

// act does what the detector has decided, and logs it.
func (d *discovered) act(events []health.Event) (changed bool) {
	if len(events) == 0 {
		return false
	}
	o := &d.outliers
	by := make(map[*health.Tally]*watched, len(o.watched))
	for _, w := range o.watched {
		by[w.watch.Tally] = w
	}
	for i := range events {
		e := &events[i]
		w := by[e.Tally]
		switch e.Action {
		case health.Ejected:
			changed = d.upstream.Eject(w.endpoint, true) || changed
		case health.Returned:
			changed = d.upstream.Eject(w.endpoint, false) || changed
		}
		o.tell(w, e, d.upstream.Clock())
	}
	return changed
}

// tell logs an event. One that fails on and on, and is not ejected, is told of once in the time that an ejection lasts.
func (o *outliers) tell(w *watched, e *health.Event, now int64) {
	if e.Action == health.Spared || e.Action == health.Noted {
		if w.told != 0 && now-w.told < int64(o.spec.BaseEjectionTime) {
			return
		}
		w.told = now
	}
	attributes := []any{"endpoint", w.endpoint.Address, "cause", e.Cause.String()}
	if e.Threshold != 0 {
		attributes = append(attributes, "success_rate", e.Rate, "threshold", e.Threshold)
	}
	if e.Action == health.Ejected {
		attributes = append(attributes, "for", e.For.String())
	}
	attributes = append(attributes, "ejected", o.detector.Stats().Active, "of", len(o.watched))
	switch e.Action {
	case health.Ejected:
		o.log.Warn("endpoint ejected", attributes...)
	case health.Returned:
		o.log.Info("endpoint is back", attributes...)
	case health.Spared:
		o.log.Warn("endpoint fails and is not ejected: no more may be", attributes...)
	case health.Noted:
		o.log.Info("endpoint fails and is not ejected, which is left to chance", attributes...)
	}
}

// Ejection is an endpoint that is ejected.
type Ejection struct {
	Cause string
	Since time.Duration // ago
	Left  time.Duration // unless a check brings it back; it ends with the first analysis after
}

// Outliers are what was found in an upstream: the counts since the start, and the endpoints that are ejected, by address; ok: it is looked
// for. It may be called from any goroutine.
func (c *Compiled) Outliers(name string) (s health.DetectorStats, ejected map[string]Ejection, ok bool) {
	d := c.found[name]
	if d == nil {
		return s, nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o, now := &d.outliers, d.upstream.Clock()
	if o.detector == nil {
		return o.total(), nil, false
	}
	for _, w := range o.watched {
		if r := o.detector.Record(w.watch.Tally, now); r.Ejected {
			if ejected == nil {
				ejected = map[string]Ejection{}
			}
			ejected[w.endpoint.Address] = Ejection{r.Cause.String(), r.Age, o.detector.Left(w.watch.Tally, now)}
		}
	}
	return o.total(), ejected, true
}
