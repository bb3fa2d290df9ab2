package limits

// The leaky bucket as a queue (J. Turner, New Directions in Communications, IEEE Communications Magazine 24(10), 1986): what
// comes too early is admitted with a delay, after which it leaves at the rate of the limit. The state is that of the
// token bucket, for the two are mirror images: the time ahead of now, beyond the depth of the burst, is the delay. What would
// be delayed for longer than MaxWait is refused, so that MaxWait bounds the queue in time and MaxWait/interval in length.

// leakyBucket takes cost of a leaky bucket.
func leakyBucket(state uint64, r *rule, cost uint32, now int64) (next uint64, o outcome) {
	ahead, astray := gcraAhead(state, r, now)
	deepest := r.depth + r.patience
	o = outcome{remaining: leakyRemaining(r, ahead), reset: nanosUp(ahead)}
	if uint64(cost) > r.capacity() {
		o.wait = int64(Never)
		return state, o
	}
	after := ahead + int64(cost)*r.interval
	if after > deepest {
		if astray {
			state = gcraState(ahead, now)
		}
		o.wait = nanosUp(after - deepest)
		return state, o
	}
	if cost > 0 {
		state = gcraState(after, now)
	}
	return state, outcome{allowed: true, remaining: leakyRemaining(r, after), reset: nanosUp(after), wait: nanosUp(max(0, after-r.depth))}
}

// leakyRemaining counts what would be admitted, with a delay or without.
func leakyRemaining(r *rule, ahead int64) uint64 {
	return uint64(max(0, r.depth+r.patience-ahead)) / uint64(r.interval)
}
