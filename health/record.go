package health

import (
	"errors"
	"fmt"
	"time"
)

// The records below carry the state of endpoints and breakers over a change of their specs, and to another process. What was
// counted is not in them. Times are durations, for clocks differ.

// CheckRecord is the state of a Check.
type CheckRecord struct {
	Healthy, Settled bool
	Age              time.Duration // of the state
}

// EjectionRecord is the state of a Tally.
type EjectionRecord struct {
	Ejected    bool
	Cause      Cause
	Age        time.Duration // since it was ejected or came back
	Jitter     time.Duration
	Multiplier int // by which the last ejection was longer than the base time, less what has decayed
}

// BreakerRecord is the state of a Breaker.
type BreakerRecord struct {
	State BreakerState
	Level int           // how often the cooldown has grown
	Left  time.Duration // Open: of the cooldown
}

// maxRecordAge bounds the times of a record.
const maxRecordAge = 10 * 365 * 24 * time.Hour

func checkAge(times ...time.Duration) error {
	for _, d := range times {
		if d < 0 || d > maxRecordAge {
			return fmt.Errorf("a time of %d ns cannot be", d)
		}
	}
	return nil
}

// Record gives the state.
func (c *Check) Record(now int64) CheckRecord {
	return CheckRecord{c.healthy, c.settled, time.Duration(max(now-c.since, 0))}
}

// Restore puts a recorded state in place of what the spec assumes at the start. The next result is not the first.
func (c *Check) Restore(r CheckRecord, now int64) error {
	if err := checkAge(r.Age); err != nil {
		return fmt.Errorf("cannot restore check: %w", err)
	}
	c.healthy, c.settled, c.known, c.since = r.Healthy, r.Settled, true, now-int64(r.Age)
	return nil
}

// Record gives the state of an endpoint.
func (d *Detector) Record(t *Tally, now int64) EjectionRecord {
	r := EjectionRecord{Ejected: t.ejected, Cause: t.cause, Jitter: time.Duration(t.jitter), Multiplier: int(t.backoff)}
	if t.ejected {
		r.Age = time.Duration(max(now-t.ejectedAt, 0))
	} else if t.wasEjected {
		r.Age = time.Duration(max(now-t.returnedAt, 0))
	}
	return r
}

// Restore puts a recorded state in place of that of an endpoint that was just added. It is ejected again even if that is more
// than may be now. How long is what the spec says now.
func (d *Detector) Restore(t *Tally, r EjectionRecord, now int64) error {
	const most = 1 << 20
	if err := checkAge(r.Age, r.Jitter); err != nil {
		return fmt.Errorf("cannot restore ejection: %w", err)
	}
	if r.Cause >= Causes || r.Multiplier < 0 || r.Multiplier > most || r.Ejected && r.Multiplier == 0 {
		return errors.New("cannot restore ejection: it cannot be")
	}
	if t.ejected || t.removed {
		return errors.New("cannot restore ejection: the endpoint has a state")
	}
	// At most one above what reaches the maximum, as if it had grown under this spec.
	t.backoff = min(int64(r.Multiplier), int64((d.spec.MaxEjectionTime+d.spec.BaseEjectionTime-1)/d.spec.BaseEjectionTime)+1)
	t.cause, t.jitter = r.Cause, int64(min(r.Jitter, d.spec.MaxEjectionTimeJitter))
	if r.Ejected {
		t.ejected, t.ejectedAt = true, now-int64(r.Age)
		d.stats.Active++
	} else if r.Multiplier > 0 {
		t.wasEjected, t.returnedAt = true, now-int64(r.Age)
	}
	return nil
}

// Record gives the state. One that is half-open is recorded as open with nothing left: its probes stay behind.
func (b *Breaker) Record(now int64) BreakerRecord {
	w := breakerWord(b.word.Load())
	r := BreakerRecord{State: w.state(), Level: w.level()}
	switch r.State {
	case Open:
		r.Left = b.RetryAfter(now)
	case HalfOpen:
		r.State = Open
	}
	return r
}

// Restore puts a recorded state in place of that of a breaker that nobody uses yet. The cooldown that is left is at most what
// the spec says now.
func (b *Breaker) Restore(r BreakerRecord, now int64) error {
	if err := checkAge(r.Left); err != nil {
		return fmt.Errorf("cannot restore breaker: %w", err)
	}
	if r.State != Closed && r.State != Open || r.Level < 0 || r.Level > maxLevel {
		return errors.New("cannot restore breaker: its state cannot be")
	}
	if r.State == Open {
		b.until.Store(now + min(int64(r.Left), b.cooldowns[r.Level]))
		b.word.Store(uint64(breakerWord(0).next(Open, r.Level)))
	}
	return nil
}
