// Package loop is the engine: an event loop per core, and on it one coroutine per active connection.
//
// A Loop owns an epoll instance, its listening sockets, connections, timers and buffers, and runs on one goroutine. What
// is active runs in coroutines: plain, synchronous code over a Conn, which tries the system call when the kernel has said
// that it may succeed, and otherwise yields to the loop until it does. Of all the coroutines of a loop one runs at a
// time, and it is only ever exchanged for another inside a call that says so (Read, Write, Wait, Park, Await): what a loop
// owns is therefore touched without locks.
//
// The rules, each kept by a test or the linter: code on a loop never blocks, sleeps or waits for a lock, what might goes
// through Await; no lock is held over a call that may yield; LockOSThread is forbidden in a coroutine; Goexit ends only the
// coroutine that calls it; a panic ends only the task in which it happened.
//
// Unless said otherwise, methods may be called only on the loop that owns the object. Post may be called from anywhere, Do
// and Stop from anywhere but a loop.
package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options are a loop's settings; the zero value is ready.
type Options struct {
	Index int          // position among the loops of the process; names it in logs
	Log   *slog.Logger // nil: slog.Default()
	// Late is told of every time when something held the loop for longer than LateAfter. It runs on the loop.
	Late func(held time.Duration, by string)
	// Panicked is told of every panic on the loop, in a task or not, after it was logged.
	Panicked func()
}

// LateAfter is how long one task may hold a loop before it is counted as late.
const LateAfter = 5 * time.Millisecond

// maxEvents bounds the events taken from the kernel in one turn, and with them the time until the others get their turn.
const maxEvents = 128

// Loop is one event loop. Make it with New, start it with Start, end it with Stop.
type Loop struct {
	options Options
	log     *slog.Logger

	epoll   int
	gate    *gate               // where the loop waits for epoll
	conns   []*Conn             // by fd
	accepts map[int32]*Acceptor // by fd
	events  [maxEvents]unix.EpollEvent
	event   int // the next event of this turn
	count   int // events of this turn
	serial  int32

	now    int64 // nanoseconds on the monotonic clock, read once a turn and after each task
	turned int64 // now as of the start of the turn
	epoch  time.Time
	civil  int64 // the time of day of instant 0, as the host has it now
	asked  int64 // when that is to be asked again

	current  *coroutine // runs now; nil: the loop itself
	ready    batch[*coroutine]
	answers  batch[*Conn] // idle and with something to read: those that were dialled
	going    batch[*Conn] // those whose work is under way
	arrivals batch[*Conn] // the others
	begun    int          // new work of this turn
	idle     []*coroutine
	all      []*coroutine

	wheel   wheel
	timerFD int
	wakeFD  int
	posted  atomic.Pointer[post]
	taken   *post // posts that were taken and not yet run
	wakers  atomic.Int32
	closed  atomic.Bool // wakeFD is, or is about to be, somebody else's
	buffers buffers
	pipes   []*pipe
	awaits  int // coroutines in Await

	busyPolling busyPolling

	busySince atomic.Int64 // 0: parked
	stopping  bool
	stopped   chan struct{}
	failure   error // why the loop ended; nil: Stop
	panics    int
	panicTold map[string]int64 // by text: when the log was last told
	started   sync.Once
}

// New makes a loop with its own epoll instance.
func New(o Options) (*Loop, error) {
	l := &Loop{options: o, log: o.Log, accepts: map[int32]*Acceptor{}, panicTold: map[string]int64{}, stopped: make(chan struct{}), epoch: time.Now()}
	l.civil = l.epoch.UnixNano()
	if l.log == nil {
		l.log = slog.Default()
	}
	if err := l.open(); err != nil {
		l.closeFDs()
		return nil, fmt.Errorf("cannot make event loop: %w", err)
	}
	return l, nil
}

func (l *Loop) open() (err error) {
	l.epoll, l.timerFD, l.wakeFD = -1, -1, -1
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if l.timerFD, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return err
	}
	if l.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return err
	}
	for _, fd := range []int{l.timerFD, l.wakeFD} {
		if err = l.register(fd, unix.EPOLLIN, 0); err != nil {
			return err
		}
	}
	l.gate, err = openGate(l.epoll, l.takeEvents)
	return err
}

// Start runs the loop on a goroutine of its own until Stop.
func (l *Loop) Start() { l.started.Do(func() { go l.run() }) }

// Index is the loop's position among the loops of the process.
func (l *Loop) Index() int { return l.options.Index }

// Log is the error log.
func (l *Loop) Log() *slog.Logger { return l.log }

// Now is the loop's coarse clock: monotonic nanoseconds, as of the start of the turn or the end of the last task.
func (l *Loop) Now() int64 { return l.now }

// Turned is when the events of this turn were taken from the kernel.
func (l *Loop) Turned() int64 { return l.turned }

// Clock reads the clock: monotonic nanoseconds on the scale of Now. It costs what time.Since costs.
func (l *Loop) Clock() int64 { return int64(time.Since(l.epoch)) + 1 }

// Wall is the coarse clock as nanoseconds of Unix time, counted from the loop's beginning: it never jumps, and so is for intervals.
func (l *Loop) Wall() int64 { return l.epoch.UnixNano() + l.now }

// WallAt is an instant of the loop's clock as nanoseconds of Unix time.
func (l *Loop) WallAt(t int64) int64 { return l.epoch.UnixNano() + t }

// Time is the time of day of the coarse clock, as nanoseconds of Unix time. When the host's clock is set it follows within a second.
func (l *Loop) Time() int64 { return l.civil + l.now }

// TimeAt is an instant of the loop's clock as the time of day.
func (l *Loop) TimeAt(t int64) int64 { return l.civil + t }

// civilEvery is how often the host's clock is asked for the time of day.
const civilEvery = time.Second

// tellTime asks for the time of day when it is due.
func (l *Loop) tellTime() {
	if l.now >= l.asked {
		l.asked = l.now + int64(civilEvery)
		l.civil = time.Now().UnixNano() - l.Clock()
	}
}

// run is the loop's goroutine. A Goexit in a coroutine ends it, and so would a panic in what runs outside of one; the
// deferred function goes on in another, in the middle of the same turn.
func (l *Loop) run() {
	over := false
	defer func() {
		if over {
			return
		}
		if p := recover(); p != nil {
			l.panicked("posted function, timer or accept", p)
		} else {
			l.log.Error("a coroutine ended its goroutine: the loop goes on in another", "loop", l.options.Index)
		}
		l.current = nil
		go l.run()
	}()
	for !l.over() {
		l.turn()
	}
	over = true
	l.busySince.Store(0)
	l.closeFDs()
	close(l.stopped)
}

const (
	// panicEvery is how often the same panic is logged with its stack: those between are only counted.
	panicEvery = int64(time.Minute)
	// maxPanics bounds the different panics that are logged within that time, and maxPanicBytes what tells them apart.
	maxPanics     = 16
	maxPanicBytes = 200
)

// Panicked tells of a panic that a task has recovered, p. It must be called by the function that recovered it, for the stack.
func (l *Loop) Panicked(p any) { l.panicked(l.current.String(), p) }

func (l *Loop) panicked(task string, p any) {
	l.panics++
	text := fmt.Sprint(p)
	if l.mayTell(text) {
		l.log.Error("panic in a task: a mistake in the gateway, please report it with its stack; for a minute the same is only counted",
			"loop", l.options.Index, "task", task, "panics", l.panics, "panic", text, "stack", string(debug.Stack()))
	}
	if l.options.Panicked != nil {
		l.options.Panicked()
	}
}

// mayTell says whether a panic was not logged within the last minute, and remembers that it is now. An awaited function's text has its stack
// behind the first line, which differs each time.
func (l *Loop) mayTell(text string) bool {
	text, _, _ = strings.Cut(text, "\n")
	text = text[:min(len(text), maxPanicBytes)]
	now := l.Clock()
	for told, at := range l.panicTold {
		if now-at >= panicEvery {
			delete(l.panicTold, told)
		}
	}
	if _, told := l.panicTold[text]; told || len(l.panicTold) >= maxPanics {
		return false
	}
	l.panicTold[text] = now
	return true
}

// turn handles what is there and then waits for more. An event counts as handled when its handler has returned: one that
// a Goexit or a panic cut short is handled again, which wakes those that it had not come to.
func (l *Loop) turn() {
	for ; l.event < l.count; l.event++ {
		l.dispatch(&l.events[l.event])
	}
	l.runTimers() // after the events: what has come in time is not late
	l.runReady()
	l.runArrivals()
	if l.awaits > 0 {
		runtime.Gosched() // let awaited functions start, also with one processor
	}
	if !l.stopping || len(l.all) > len(l.idle) {
		l.poll()
	}
}

func (l *Loop) dispatch(e *unix.EpollEvent) {
	if c := l.lookup(e); c != nil {
		c.event(e.Events)
		return
	}
	by := "accept"
	switch e.Fd {
	case int32(l.wakeFD):
		by = "posted function"
		l.runPosted()
	case int32(l.timerFD):
		l.fired()
	default:
		if a := l.accepts[e.Fd]; a != nil && a.serial == e.Pad {
			a.accept()
		}
	}
	if held := l.tick(); held > LateAfter {
		l.late(held, by)
	}
}

// lookup gives the connection of an event, nil if it is of something else or of a connection that was closed in this turn:
// the serial tells a reused descriptor from its predecessor.
func (l *Loop) lookup(e *unix.EpollEvent) *Conn {
	if int(e.Fd) < len(l.conns) {
		if c := l.conns[e.Fd]; c != nil && c.serial == e.Pad {
			return c
		}
	}
	return nil
}

// runReady resumes the coroutines that were made ready, once each: those that become ready meanwhile wait for the next
// turn, so that one which always has work does not keep the others from theirs.
func (l *Loop) runReady() {
	l.ready.begin()
	for co, ok := l.ready.next(); ok; co, ok = l.ready.next() {
		l.resume(co)
	}
}

// poll takes the next events, waiting for them if nothing is ready.
func (l *Loop) poll() {
	l.event = 0
	if !l.takeEvents() && l.ready.empty() && l.answers.empty() && l.going.empty() && l.arrivals.empty() {
		err := l.arm()
		l.busySince.Store(0)
		if err == nil {
			err = l.waitEvents()
		}
		if err != nil {
			l.failure = fmt.Errorf("cannot wait for events: %w", err)
			l.halt()
		}
	}
	l.now = l.Clock()
	l.tellTime()
	l.turned = l.now
	l.busySince.Store(l.now)
	if l.wheel.timers == 0 {
		l.wheel.tick = l.now >> tickBits
	}
}

func (l *Loop) takeEvents() bool {
	l.count = epollWait(l.epoll, l.events[:])
	return l.count > 0
}

func (l *Loop) register(fd int, events uint32, serial int32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: serial}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e)
}

// Stop ends the loop: what waits is woken with ErrStopped, every connection is closed, and the goroutine has ended when
// Stop returns. To finish the work first is the caller's business.
func (l *Loop) Stop() error {
	l.Start() // one that was never started ends, too
	l.Post(l.halt)
	<-l.stopped
	return l.failure
}

// halt begins the end: nothing new comes, and what waits is told.
func (l *Loop) halt() {
	l.stopping = true
	for _, a := range l.accepts {
		a.Close()
	}
	for _, c := range l.conns {
		if c != nil && c.idle {
			c.Close()
		}
	}
	for _, co := range l.all {
		l.interrupt(co, ErrStopped)
	}
}

// Abort closes every connection for which end says so, and ends all waits of the tasks that serve them with ErrHangup, now and from now
// on. It is not called by such a task.
func (l *Loop) Abort(end func(c *Conn) bool) {
	for _, c := range l.conns {
		if c != nil && end(c) {
			c.Close()
		}
	}
	for _, co := range l.all {
		if co.conn != nil && co.conn.closed {
			Task{co}.Hangup()
		}
	}
}

// over says whether the loop has been stopped and no task is left.
func (l *Loop) over() bool {
	if !l.stopping || len(l.all) > len(l.idle) {
		return false
	}
	for _, c := range l.conns {
		if c != nil {
			c.Close()
		}
	}
	if len(l.all) > len(l.idle) { // somebody took a connection's end for a reason to begin something
		return false
	}
	l.endIdle()
	return true
}

// closeFDs closes what New opened, once nobody is about to write to wakeFD.
func (l *Loop) closeFDs() {
	for l.closed.Store(true); l.wakers.Load() > 0; {
		runtime.Gosched()
	}
	for _, p := range l.pipes {
		p.close()
	}
	l.pipes = nil
	for _, fd := range []int{l.timerFD, l.wakeFD} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if l.gate != nil {
		l.gate.close()
	}
	if l.epoll >= 0 {
		_ = unix.Close(l.epoll)
	}
}
