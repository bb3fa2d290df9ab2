package limits

import "math/bits"

// The sliding window, of two weighted windows: S. Nomula, How we built rate limiting capable of scaling to millions of domains
// (Cloudflare, 2017). What came in the last period is estimated as the count of the current window plus that part of the
// previous one's which the period still covers, as if it had come evenly. Where that holds the limit is exact; the worst that
// uneven arrivals can gain is less than one limit more within a period. Who needs the exact bound takes a token bucket.

// slidingWindow takes cost of a sliding window.
func slidingWindow(state uint64, r *rule, cost uint32, now int64) (next uint64, o outcome) {
	p := pairAt(state, r.period, now)
	elapsed, early := phase(now, r.period), int64(0)
	if p.index > pairIndex(now, r.period) { // another loop has begun the next window already
		early, elapsed = r.period-elapsed, 0
	}
	o.reset = early + r.period - elapsed
	used := p.current + mulDivUp(p.previous, uint64(r.period-elapsed), uint64(r.period))
	o.remaining = r.limit - min(used, r.limit)
	if uint64(cost) > o.remaining {
		if o.wait = int64(Never); uint64(cost) <= r.limit {
			o.wait = early + slidingWait(p, r, uint64(cost), elapsed)
		}
		if p.astray {
			state = p.state()
		}
		return state, o
	}
	o.allowed = true
	if cost > 0 {
		o.remaining -= uint64(cost)
		p.current += uint64(cost)
		state = p.state()
	}
	return state, o
}

// slidingWait is how long until cost, at most the limit, fits if nobody else comes.
func slidingWait(p pair, r *rule, cost uint64, elapsed int64) int64 {
	// Of a count n, ceil(n*(period-e)/period) <= room from e = period - floor(room*period/n) on.
	until := func(n, room uint64) int64 {
		if n <= room {
			return 0
		}
		hi, lo := bits.Mul64(room, uint64(r.period))
		part, _ := bits.Div64(hi, lo, n)
		return r.period - int64(part)
	}
	if room := r.limit - cost; p.current <= room {
		return max(0, until(p.previous, room-p.current)-elapsed)
	}
	return r.period - elapsed + until(p.current, r.limit-cost)
}

// mulDivUp is a*b/c, rounded up. b <= c.
func mulDivUp(a, b, c uint64) uint64 {
	if a == 0 {
		return 0
	}
	hi, lo := bits.Mul64(a, b)
	q, rest := bits.Div64(hi, lo, c)
	if rest > 0 {
		q++
	}
	return q
}
