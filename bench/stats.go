package main

import (
	"math"
	"slices"
)

// summary is what the rounds of one peer come to. Only runs that did not fail take part.
type summary struct {
	runs, failed int
	median, min  float64
}

func summarize(samples []sample) summary {
	var values []float64
	result := summary{runs: len(samples)}
	for _, s := range samples {
		if s.err != nil {
			result.failed++
			continue
		}
		values = append(values, s.value)
	}
	result.median = median(values)
	result.min = math.NaN()
	if len(values) > 0 {
		result.min = slices.Min(values)
	}
	return result
}

// median is NaN for no values: a missing figure must not look like a good one.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medianOf is the median of one property over the runs that did not fail.
func medianOf(samples []sample, property func(sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		if s.err == nil {
			values = append(values, property(s))
		}
	}
	return median(values)
}

// comparison is the subject's summary against those of the others, by peer name.
type comparison struct {
	medianRatio map[string]float64
	// The ratios to the better of the others, which need not be the same one for median and minimum.
	betterMedian, betterMin float64
}

// compare divides by each peer and by the cheapest one that is a proxy. Without the subject, or with none to compare it with, ratios are NaN.
func compare(summaries map[string]summary) comparison {
	own, ok := summaries[subject]
	if !ok {
		own = summary{median: math.NaN(), min: math.NaN()}
	}
	result := comparison{medianRatio: make(map[string]float64)}
	bestMedian, bestMin := math.NaN(), math.NaN()
	for name, other := range summaries {
		if name == subject {
			continue
		}
		result.medianRatio[name] = own.median / other.median
		if name == childRelay {
			continue
		}
		bestMedian, bestMin = lesser(bestMedian, other.median), lesser(bestMin, other.min)
	}
	result.betterMedian, result.betterMin = own.median/bestMedian, own.min/bestMin
	return result
}

// ratio is NaN for a peer that was not measured.
func (c comparison) ratio(name string) float64 {
	if ratio, ok := c.medianRatio[name]; ok {
		return ratio
	}
	return math.NaN()
}

// lesser ignores NaN where it can.
func lesser(a, b float64) float64 {
	if math.IsNaN(a) || b < a {
		return b
	}
	return a
}

// verdict is the outcome against the target of a scenario.
type verdict string

const (
	noTarget verdict = "–"
	unknown  verdict = "?"
	met      verdict = "met"
	missed   verdict = "missed"
)

// judge compares the median, or its ratio to the better peer, with the target. A run that failed leaves no verdict
// of success.
func judge(s scenario, own summary, against comparison) verdict {
	if s.target == 0 {
		return noTarget
	}
	figure := own.median
	if s.relative() {
		figure = against.betterMedian
	}
	switch {
	case own.runs == 0 || math.IsNaN(figure):
		return unknown
	case figure > s.target:
		return missed
	case own.failed > 0:
		return unknown
	}
	return met
}
