package loop

import (
	"testing"
	"time"
)

// Timers of a running loop: in order, never early, moved, stopped, and set again from their own function.
func TestTimersOfALoop(t *testing.T) {
	l, _ := start(t, Options{})
	type firing struct {
		name string
		late int64
	}
	fired := make(chan firing, 10)
	on(t, l, func() {
		set := func(name string, after time.Duration) *Timer {
			var timer *Timer
			at := l.Now() + int64(after)
			timer = l.NewTimer(func() { fired <- firing{name, l.Clock() - at} })
			timer.At(at)
			return timer
		}
		set("third", 120*time.Millisecond)
		set("first", 20*time.Millisecond)
		set("second", 70*time.Millisecond)
		set("stopped", 50*time.Millisecond).Stop()
		moved := set("moved away", 30*time.Millisecond)
		moved.At(l.Now() + int64(time.Hour))
		rounds := 0
		var again *Timer
		again = l.NewTimer(func() {
			if rounds++; rounds < 3 {
				again.At(l.Now() + int64(50*time.Millisecond))
				return
			}
			fired <- firing{name: "third round"}
		})
		again.At(l.Now() + int64(50*time.Millisecond))
	})
	for _, want := range []string{"first", "second", "third", "third round"} {
		got := receive(t, fired, want)
		if got.name != want || got.late < 0 {
			t.Errorf("%s expired %v late, want %s", got.name, time.Duration(got.late), want)
		}
	}
}

// A task that always has something to do does not keep timers from expiring.
func TestTimersWhileSomethingIsAlwaysReady(t *testing.T) {
	l, _ := start(t, Options{})
	task(t, l, func() {
		expired := 0
		var timer *Timer
		timer = l.NewTimer(func() {
			expired++
			timer.At(l.Now() + int64(20*time.Millisecond))
		})
		timer.At(l.Now() + int64(20*time.Millisecond))
		eventuallyInTask(l, func() bool { return expired == 3 })
		timer.Stop()
		if expired != 3 {
			t.Errorf("the timer has expired %d times", expired)
		}
	})
}

// The clocks of a loop fit together.
func TestClocks(t *testing.T) {
	l, _ := start(t, Options{})
	task(t, l, func() {
		before, begun := l.Clock(), l.Yielded()
		for l.Clock() == before {
		}
		if l.Now() > l.Clock() || l.Turned() > l.Now() || begun > l.Now() || begun <= 0 {
			t.Errorf("clock %d, now %d, turned %d, begun %d", l.Clock(), l.Now(), l.Turned(), begun)
		}
		if off := time.Now().UnixNano() - l.WallAt(l.Clock()); off < -int64(time.Second) || off > int64(time.Second) {
			t.Errorf("the wall clock is %v off", time.Duration(off))
		}
		if l.Wall() != l.WallAt(l.Now()) {
			t.Error("Wall is not WallAt(Now)")
		}
		err := l.Park(l.Now() + 1)
		if l.Yielded() < before || l.Yielded() > l.Now() || err != ErrTimeout {
			t.Errorf("yielded at %d, it is %d: %v", l.Yielded(), l.Now(), err)
		}
	})
}

// TestTimeFollowsTheHost sets the clock, as far as the loop can tell: the time of day follows, what intervals are made of does not.
func TestTimeFollowsTheHost(t *testing.T) {
	l, _ := start(t, Options{})
	off := func() time.Duration { return time.Duration(time.Now().UnixNano() - l.TimeAt(l.Clock())).Abs() }
	on(t, l, func() {
		if off() > time.Second || l.Time() != l.TimeAt(l.Now()) {
			t.Errorf("it is off by %v", off())
		}
	})
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		var wall int64
		on(t, l, func() {
			l.civil += int64(step)
			wall = l.WallAt(0)
			if off() < 59*time.Minute {
				t.Error("it cannot be off")
			}
		})
		eventually(t, l, "the time is right", func() bool { return off() < time.Second })
		on(t, l, func() {
			if l.WallAt(0) != wall {
				t.Error("what intervals are made of has jumped")
			}
		})
	}
}
