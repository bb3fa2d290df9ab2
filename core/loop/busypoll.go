package loop

import "time"

// BusyPolling is how often a loop has looked for events instead of parking at once: Found some, or parked in vain afterwards.
type BusyPolling struct{ Found, Missed uint64 }

// busyPolling has a loop look for events for a while before it parks, if those before have come so soon that it would have
// found them: to have a processor sleep and wake may cost more than that, and takes longer. It is off where events come
// seldom, where the awaited wait for a processor, and, ever longer, where looking was in vain.
type busyPolling struct {
	window int64 // how long it looks; 0: never
	soon   int   // events in a row that came soon
	enough int   // so many make it look
	counts BusyPolling
}

const (
	// waking is by how much later than an event a parked loop may be back.
	waking = int64(60 * time.Microsecond)
	// minSoon and maxSoon bound busyPolling.enough, which doubles when looking was in vain, and begins anew when it was not.
	minSoon, maxSoon = 4, 4096
)

// BusyPoll has the loop look for events for so long before it parks, where that promises to be worth it; 0: never, which is
// how a loop begins.
func (l *Loop) BusyPoll(window time.Duration) {
	l.busyPolling.window, l.busyPolling.soon, l.busyPolling.enough = int64(window), 0, minSoon
}

// BusyPolling counts since the start.
func (l *Loop) BusyPolling() BusyPolling { return l.busyPolling.counts }

// waitEvents takes the next events, and returns when there are some or for no reason.
func (l *Loop) waitEvents() error {
	p := &l.busyPolling
	if p.window == 0 {
		return l.gate.wait()
	}
	since := l.Clock()
	if p.soon >= p.enough && l.awaits == 0 {
		for l.Clock()-since < p.window {
			if l.takeEvents() {
				p.counts.Found++
				p.enough = minSoon
				return nil
			}
		}
		p.counts.Missed++
		p.soon, p.enough = 0, min(2*p.enough, maxSoon)
		return l.gate.wait()
	}
	err := l.gate.wait()
	if p.soon++; l.Clock()-since > p.window+waking {
		p.soon = 0
	}
	return err
}
