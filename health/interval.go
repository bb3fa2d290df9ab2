package health

import (
	"cmp"
	"math"
	"slices"
)

// Interval analyses what was counted since the last call; the owner calls it every OutlierSpec.Interval. It brings back
// endpoints whose time is over, ejects those whose success rate is an outlier, then those that fail too large a share, and lets
// the time by which ejections grow decay for the others.
func (d *Detector) Interval(now int64) (events []Event) {
	for _, t := range d.tallies {
		if t.ejected && now-t.ejectedAt >= d.ejectionTime(t) {
			events = append(events, d.bringBack(t, now))
		}
		t.count()
	}
	events = d.judge(events, 0, CauseSuccessRate, CauseFailurePercent, now)
	if d.spec.SplitLocalOrigin {
		events = d.judge(events, 1, CauseSuccessRateLocalOrigin, CauseFailurePercentLocalOrigin, now)
	}
	for _, t := range d.tallies {
		if !t.ejected && t.wasEjected && t.backoff > 0 && now-t.returnedAt >= int64(d.spec.Interval) {
			t.backoff--
		}
	}
	return events
}

// judge compares the endpoints by their external or their local outcomes.
func (d *Detector) judge(events []Event, side int, rate, percent Cause, now int64) []Event {
	var byRate, byPercent []*Tally
	for _, t := range d.tallies {
		n := t.interval[side].requests()
		if t.ejected || n == 0 {
			continue
		}
		if n >= uint64(d.spec.SuccessRateVolume) {
			byRate = append(byRate, t)
		}
		if n >= uint64(d.spec.FailurePercentVolume) {
			byPercent = append(byPercent, t)
		}
	}
	eject := func(all []*Tally, c Cause, outlier func(rate float64) bool, threshold float64) {
		slices.SortStableFunc(all, func(a, b *Tally) int { return cmp.Compare(a.interval[side].rate(), b.interval[side].rate()) })
		for _, t := range all {
			if r := t.interval[side].rate(); !t.ejected && outlier(r) {
				e := d.detect(t, c, now)
				e.Rate, e.Threshold = r, threshold
				events = append(events, e)
			}
		}
	}
	if len(byRate) >= d.spec.SuccessRateMinHosts {
		threshold := rateThreshold(byRate, side, float64(d.spec.SuccessRateStdev)/1000)
		eject(byRate, rate, func(r float64) bool { return r < threshold }, threshold)
	}
	if len(byPercent) >= d.spec.FailurePercentMinHosts {
		most := float64(d.spec.FailurePercentThreshold)
		eject(byPercent, percent, func(r float64) bool { return 100-r >= most }, 100-most)
	}
	return events
}

// rateThreshold is factor standard deviations, of the population, below the mean success rate.
func rateThreshold(all []*Tally, side int, factor float64) float64 {
	mean, variance, n := 0.0, 0.0, float64(len(all))
	for _, t := range all {
		mean += t.interval[side].rate() / n
	}
	for _, t := range all {
		variance += (t.interval[side].rate() - mean) * (t.interval[side].rate() - mean) / n
	}
	return mean - factor*math.Sqrt(variance)
}
