package lb

import "math"

// peakEWMA draws some endpoints by weight, two by default, and takes the one with the shortest wait to expect: its latency times
// the requests in flight and one. It is Finagle's Peak EWMA: the average follows a slower answer at once and a faster one
// slowly, so that an endpoint that stalls is left alone from its first slow answer on. Unlike Finagle it counts failures as
// slow answers, and requests in flight against the weight.
type peakEWMA struct {
	drawing
	rate float32 // 1/Decay, per nanosecond
}

func newPeakEWMA(d drawing) *peakEWMA { return &peakEWMA{d, 1 / float32(d.set.spec.Decay)} }

func (p *peakEWMA) Pick(a *Attempt) *Endpoint {
	entries := p.set.entries
	if len(entries) == 0 {
		return p.last(a)
	}
	if a.count == 0 && p.set.spec.Choices == 2 {
		return p.two(a)
	}
	best, least := -1, float32(0)
	for range p.set.spec.Choices {
		i := p.draw(a, best)
		if i < 0 {
			break
		}
		if w := p.wait(&entries[i], a.Now); best < 0 || w < least {
			best, least = i, w
		}
	}
	if best < 0 {
		return p.last(a)
	}
	return entries[best].endpoint
}

// two is the usual case. Positive floats are ordered as their bits are.
func (p *peakEWMA) two(a *Attempt) *Endpoint {
	entries := p.set.entries
	var i, j int
	if p.set.alias == nil {
		i, j = pair(p.source.Uint64(), len(entries))
	} else {
		i = p.one()
		j = p.draw(a, i)
	}
	x, y := math.Float32bits(p.wait(&entries[i], a.Now)), math.Float32bits(p.wait(&entries[j], a.Now))
	return entries[lower(i, j, int64(x), int64(y))].endpoint
}

// draw gives an entry that a has not tried, and most likely not the one that was drawn before.
func (p *peakEWMA) draw(a *Attempt, before int) int {
	for range 2 {
		i := 0
		if a.count == 0 {
			i = p.one()
		} else {
			i = p.untried(a)
		}
		if i != before {
			return i
		}
	}
	return before
}

// unknown is the wait to expect of an endpoint that has not answered yet: short for its first request, which shows what it can
// do, and longer than any other for those that come before the answer does.
const unknown = math.MaxFloat32 / (1 << 32)

func (p *peakEWMA) wait(e *entry, now int64) float32 {
	pending := float32(e.load.inFlight.Load())
	latency := e.load.latency.at(now, p.rate)
	if latency == 0 {
		if pending == 0 {
			return 0
		}
		latency = unknown
	}
	return latency * (1 + pending*e.relief)
}
