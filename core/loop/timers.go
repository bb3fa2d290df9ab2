package loop

import "golang.org/x/sys/unix"

// fired takes notice that the kernel's timer has woken the loop.
func (l *Loop) fired() {
	var b [8]byte
	_, _ = read(l.timerFD, b[:])
	l.wheel.armed = 0
}

// runTimers expires what was due when the turn began.
func (l *Loop) runTimers() {
	if l.wheel.timers == 0 {
		return
	}
	l.wheel.advance(l.turned)
	if held := l.tick(); held > LateAfter {
		l.late(held, "timer")
	}
}

// arm sets the kernel's timer to the wheel's next tick, if that is earlier than what it is set to. Called before parking.
func (l *Loop) arm() error {
	w := &l.wheel
	if w.timers == 0 || w.armed != 0 && w.armed <= w.tick+1 {
		return nil
	}
	next := w.nextTick()
	if w.armed != 0 && w.armed <= next {
		return nil
	}
	w.armed = next
	after := max(next<<tickBits-l.Clock(), 1)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(after)}
	return unix.TimerfdSettime(l.timerFD, 0, &spec, nil)
}

// Timer calls a function at an instant. It belongs to the loop that made it.
type Timer struct {
	loop  *Loop
	timer timer
	f     func()
}

// NewTimer gives a timer that is off. f runs on the loop, not in a coroutine: it must not wait.
func (l *Loop) NewTimer(f func()) *Timer {
	t := &Timer{loop: l, f: f}
	t.timer.owner = t
	return t
}

// At makes t call its function once at the instant on the loop's clock, in the place of any other.
func (t *Timer) At(instant int64) { t.loop.wheel.set(&t.timer, instant) }

// Stop turns t off.
func (t *Timer) Stop() { t.loop.wheel.remove(&t.timer) }

func (t *Timer) expire() { t.f() }
