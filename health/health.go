// Package health holds the state machines that keep a failing endpoint from being the client's problem. Each answers one
// failure, and they are meant to be used together:
//
//	Check, Schedule   an endpoint is down, or not up yet: it is asked on purpose, and gets no requests until it answers.
//	Detector, Tally   an endpoint answers checks and fails requests: what requests came to is compared, and it is ejected.
//	Breaker           all endpoints of an upstream, or a whole route, fail: requests are refused at once, and a few try again.
//	Budget            many requests fail at the same time: retries stay a share of the load, so that they do not become it.
//	Concurrency       an upstream slows down under load: what it takes without queueing is measured, and the rest refused.
//	Canary            a new version is worse than the old one: it gets traffic by steps, and loses it when it breaks a condition.
//
// They are pure: no clock, no goroutine, no socket, no message. Time is an int64 of nanoseconds on any monotonic clock, which
// the caller hands in; chance is a rand.Source, likewise. The same events give the same states, and testdata has them as
// scripts to be read.
//
// What requests call (Tally.Report; Breaker.Allow and Report; Budget.Begin, End and Retry; Concurrency.Acquire and Release;
// Canary.Percent and Report) may be called by all loops at once: it is atomic, allocates nothing and never waits. All else
// belongs to one goroutine at a time. Each type says what it is exact about, and what it bounds.
package health

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Outcome is what an attempt at an endpoint came to.
type Outcome uint8

// Success is any answer below 500, ServerError a 5xx other than 502, 503 and 504, GatewayError one of these three as the
// endpoint's own answer. The others are of local origin: there was no answer.
const (
	Success Outcome = iota
	ServerError
	GatewayError
	ConnectFailed
	Reset
	Timeout
)

// StatusOutcome is the outcome of an attempt that was answered with status.
func StatusOutcome(status int) Outcome {
	switch {
	case status < 500:
		return Success
	case status >= 502 && status <= 504:
		return GatewayError
	}
	return ServerError
}

// local says whether there was no answer.
func (o Outcome) local() bool { return o >= ConnectFailed }

// SpecError says which setting of a spec cannot be. Setting is its name in the configuration.
type SpecError struct{ Setting, Problem string }

func (e *SpecError) Error() string { return e.Setting + " " + e.Problem }

// ranges checks the settings of a spec and keeps the first that is out of its range.
type ranges struct{ err error }

func (r *ranges) refuse(setting, format string, args ...any) {
	if r.err == nil {
		r.err = &SpecError{setting, fmt.Sprintf(format, args...)}
	}
}

func (r *ranges) duration(setting string, d, least, most time.Duration) {
	if d < least || d > most {
		r.refuse(setting, "must be %s..%s, not %s", least, most, d)
	}
}

func (r *ranges) integer(setting string, n, least, most int) {
	if n < least || n > most {
		r.refuse(setting, "must be %d..%d, not %d", least, most, n)
	}
}

// number refuses NaN too.
func (r *ranges) number(setting string, f, least, most float64) {
	if !(f >= least && f <= most) {
		r.refuse(setting, "must be %v..%v, not %v", least, most, f)
	}
}

// upTo draws evenly from 0 to most, both included.
func upTo(random rand.Source, most time.Duration) int64 {
	if most <= 0 {
		return 0
	}
	// The bias of the modulus is below one in 2^20 for a most of up to an hour.
	return int64(random.Uint64() % uint64(most+1))
}
