package limits

// The token bucket, as the Generic Cell Rate Algorithm: ITU-T Recommendation I.371 (1996), Annex A, in its form of
// virtual scheduling, with ATM Forum Traffic Management 4.0, section 4.4.2. The state is one time: the theoretical arrival
// time (TAT), at which the bucket would be full again. A token is an interval of that time: a cost moves the TAT by as
// many intervals, and is admitted if the TAT then is not further ahead of now than the bucket is deep. Filling costs
// nothing, since it is time that passes.
//
// In any span w no more is admitted than burst + limit*w/period.

// clockSlack is how far a TAT may be beyond what the rule itself allows, because the clocks of two loops differ. What is
// further ahead was written before the clock was set back: then the bucket counts as empty now, not until that time.
const clockSlack = 1_000_000_000 * ticksPerNano

// gcra takes cost of a token bucket.
func gcra(state uint64, r *rule, cost uint32, now int64) (next uint64, o outcome) {
	ahead, astray := gcraAhead(state, r, now)
	if uint64(cost) > r.burst {
		return state, outcome{remaining: gcraRemaining(r, ahead), reset: nanosUp(ahead), wait: int64(Never)}
	}
	after := ahead + int64(cost)*r.interval
	if after > r.depth {
		if astray {
			state = gcraState(ahead, now)
		}
		return state, outcome{remaining: gcraRemaining(r, ahead), reset: nanosUp(ahead), wait: nanosUp(after - r.depth)}
	}
	if cost > 0 {
		state = gcraState(after, now)
	}
	return state, outcome{allowed: true, remaining: gcraRemaining(r, after), reset: nanosUp(after)}
}

// gcraAhead is how many ticks the TAT is ahead of now, 0 if the bucket is full. astray says that the clock was set back.
func gcraAhead(state uint64, r *rule, now int64) (ahead int64, astray bool) {
	if state == 0 {
		return 0, false
	}
	switch ahead = int64(state - ticks(now)); {
	case ahead <= 0:
		return 0, false
	case ahead > r.deepest+clockSlack:
		return r.depth + r.patience, true
	}
	return ahead, false
}

// gcraState is a TAT ahead of now: 0 only if it is not ahead, as of a key that was not seen.
func gcraState(ahead, now int64) uint64 {
	if ahead == 0 {
		return 0
	}
	if state := (ticks(now) + uint64(ahead)) &^ (minTicks - 1); state != 0 {
		return state
	}
	return minTicks
}

func gcraRefund(state uint64, r *rule, cost uint32, now int64) uint64 {
	ahead, _ := gcraAhead(state, r, now)
	if ahead == 0 {
		return state
	}
	return gcraState(max(0, ahead-min(int64(cost), int64(r.capacity()))*r.interval), now)
}

func gcraRemaining(r *rule, ahead int64) uint64 {
	if ahead >= r.depth {
		return 0
	}
	return uint64(r.depth-ahead) / uint64(r.interval)
}

func ticks(now int64) uint64 { return uint64(now) * ticksPerNano }

// nanosUp is a number of ticks in ns, rounded up: who comes back then is not early.
func nanosUp(t int64) int64 { return (t + ticksPerNano - 1) / ticksPerNano }
