package loop

import (
	"runtime"
	"testing"
	"time"
)

// counted is how the loop fares with busy polling.
func counted(t testing.TB, l *Loop) (n BusyPolling) {
	t.Helper()
	on(t, l, func() { n = l.BusyPolling() })
	return n
}

// Where events come soon the loop finds them before it parks, until it is told not to look.
func TestBusyPolling(t *testing.T) {
	l, _ := start(t, Options{})
	fd := keepAlive(t, l, serve(echo))
	p := make([]byte, 100)
	rounds := func(n int) {
		for range n {
			time.Sleep(time.Millisecond) // the loop has nothing to do when it comes, or nearly always
			ask(t, fd, p)
		}
	}
	rounds(100)
	if n := counted(t, l); n != (BusyPolling{}) {
		t.Errorf("nobody has asked for it: %+v", n)
	}
	on(t, l, func() { l.BusyPoll(time.Minute) }) // nothing is so slow
	rounds(100)
	if n := counted(t, l); n.Found < 50 || n.Missed != 0 {
		t.Errorf("of 100 that came soon: %+v", n)
	}
	before := counted(t, l)
	on(t, l, func() { l.BusyPoll(0) })
	rounds(100)
	if n := counted(t, l); n.Found > before.Found+1 || n.Missed != 0 { // that which brought the end of it
		t.Errorf("of 100 after it was over: %+v, before %+v", n, before)
	}
}

// Where events come seldom the loop looks ever less often, and where they do not come within the window it does not look at all.
func TestBusyPollingInVain(t *testing.T) {
	l, _ := start(t, Options{})
	fd := keepAlive(t, l, serve(echo))
	p := make([]byte, 100)
	const window, rounds = time.Microsecond, 400
	pause := func(d time.Duration) {
		for until := time.Now().Add(d); time.Now().Before(until); runtime.Gosched() {
		}
	}
	on(t, l, func() { l.BusyPoll(window) })
	for range rounds { // late for the window, and soon enough to be thought of as just missed
		pause(30 * time.Microsecond)
		ask(t, fd, p)
	}
	n := counted(t, l)
	if n.Missed > 8+n.Found { // 4, 8, 16 ... soon ones between two of them; each that was found begins anew
		t.Errorf("of %d that came late: %+v", rounds, n)
	}
	for range 20 {
		pause(2 * time.Millisecond)
		ask(t, fd, p)
	}
	if after := counted(t, l); after.Missed+after.Found > n.Missed+n.Found+2 { // that is counted itself brings events
		t.Errorf("of 20 that came seldom: %+v, before %+v", after, n)
	}
}

// While something is awaited the loop leaves the processor to it.
func TestBusyPollingWhileAwaited(t *testing.T) {
	l, _ := start(t, Options{})
	fd := keepAlive(t, l, serve(echo))
	p := make([]byte, 100)
	on(t, l, func() { l.BusyPoll(time.Minute) })
	for range 2 * minSoon {
		ask(t, fd, p)
	}
	end := make(chan struct{})
	awaited := spawn(l, func() { l.Await(func() { <-end }) })
	eventually(t, l, "an awaited function", func() bool { return l.awaits == 1 })
	before := counted(t, l)
	for range 100 {
		ask(t, fd, p)
	}
	if n := counted(t, l); n != before {
		t.Errorf("%+v, before %+v", n, before)
	}
	close(end)
	receive(t, awaited, "its end")
}
