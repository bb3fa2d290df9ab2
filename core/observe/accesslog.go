package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/core/loop"
)

const (
	// batchBytes is how much a loop gathers before it hands it over.
	batchBytes = 56 << 10
	// batchAfter is how long a line may wait for others. The writer looks every writerTick: a line is out after both.
	batchAfter = 100 * time.Millisecond
	writerTick = 50 * time.Millisecond
	// batchLines is what a batch is reckoned to hold: a queue of n lines is n/batchLines batches, of batchBytes each.
	batchLines = 64
	// keptBatches is how many a loop keeps for later: what a burst took is given back.
	keptBatches = 16
	// maxRecycled is the size above which a batch's memory is not used again.
	maxRecycled = 256 << 10
	// complainEvery is how often a destination that fails is written about in the error log.
	complainEvery = time.Minute
)

// batch is lines on their way to the writer and, empty, back again.
type batch struct {
	buf   []byte
	lines int
	next  *batch
}

// LogSpec says where the lines of an access log go, and which.
type LogSpec struct {
	To     string  // "stdout", "stderr", a file's absolute path, "syslog:unix:PATH" or "syslog:udp:ADDRESS"
	Sample float64 // share that is written of the exchanges below 500 without an error, 0..1
	Queue  int     // lines that wait for the writer before lines are dropped and counted
	// ByStatus says for statuses, or classes by their first digit, which share is written, whatever failed and whatever the route says.
	ByStatus map[int]float64
}

// shares are those of ByStatus for each status; negative: it is not named.
type shares [600]float64

func (c *LogSpec) shares() *shares {
	if len(c.ByStatus) == 0 {
		return nil
	}
	s := &shares{}
	for status := range s {
		s[status] = -1
		for _, key := range [...]int{status / 100, status} { // what names it stands above its class
			if share, ok := c.ByStatus[key]; ok && key > 0 {
				s[status] = share
			}
		}
	}
	return s
}

// AccessLog writes a line for each exchange. Each loop encodes into a batch of its own and hands it over with one atomic
// operation; one goroutine writes. A loop never waits: when the queue is full it drops lines and counts them.
type AccessLog struct {
	lanes []*lane // by loop
	sink  sink
	log   *slog.Logger // error log

	reopen  chan chan error
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once

	written, lost, failures atomic.Uint64 // lines, lines, writes
	complained              time.Time     // the writer's
}

// sink is where lines go. Only the writer uses it.
type sink interface {
	// write writes whole lines, and says how many it did not.
	write(lines []byte, count int) (lost int, err error)
	reopen() error
	close() error
}

// advised is an error of opening a destination with what to do about it.
func advised(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: the folder must be there and one that the gateway may write to, such as that of LogsDirectory=", err)
	}
	return err
}

// OpenAccessLog opens the destination that c names, for as many loops as there are. c.To must not be empty.
func OpenAccessLog(c LogSpec, loops int, log *slog.Logger) (*AccessLog, error) {
	s, err := openSink(c.To)
	if err != nil {
		return nil, fmt.Errorf("cannot open access log %q: %w", c.To, advised(err))
	}
	return newAccessLog(s, c, loops, log), nil
}

func newAccessLog(s sink, c LogSpec, loops int, log *slog.Logger) *AccessLog {
	a := &AccessLog{sink: s, log: log, reopen: make(chan chan error), stop: make(chan struct{}), stopped: make(chan struct{})}
	queue := max(c.Queue/loops, 1)
	by := c.shares()
	for i := range loops {
		a.lanes = append(a.lanes, newLane(c.Sample, by, queue, uint64(i)))
	}
	go a.run()
	return a
}

// SetAccessLog puts a in the place of the access log that there was, which is written out and closed. nil: none, as at the
// end, when the loops have finished or been stopped. The error is of the old one, in whose place a is in any case.
func (o *Observer) SetAccessLog(a *AccessLog) error {
	o.logMu.Lock()
	old := o.access.Swap(a)
	o.leaving = old
	o.logMu.Unlock()
	if old == nil {
		return nil
	}
	var done sync.WaitGroup
	for i, l := range o.loops {
		done.Add(1)
		go func() {
			defer done.Done()
			err := l.Do(closeTimeout, old.lanes[i].flush) // a loop that is held up keeps its last lines
			if errors.Is(err, loop.ErrStopped) {
				old.lanes[i].flush() // the loop is no more: its lines are anybody's
			}
		}()
	}
	done.Wait()
	err := old.close()
	o.logMu.Lock()
	defer o.logMu.Unlock()
	o.leaving = nil
	lines, dropped, failures := old.counts()
	if err != nil {
		dropped += old.waiting()
	}
	o.closedLines.Add(lines)
	o.closedDropped.Add(dropped)
	o.closedErrors.Add(failures)
	return err
}

// ReopenAccessLog opens the access log's file anew, after it was moved away. What had been observed before goes into the
// old file or the new.
func (o *Observer) ReopenAccessLog() error {
	if a := o.access.Load(); a != nil {
		return a.Reopen()
	}
	return nil
}

func (o *Observer) logCounts() (lines, dropped, failures uint64) {
	o.logMu.Lock()
	defer o.logMu.Unlock()
	lines, dropped, failures = o.closedLines.Load(), o.closedDropped.Load(), o.closedErrors.Load()
	for _, a := range [...]*AccessLog{o.access.Load(), o.leaving} {
		if a != nil {
			l, d, f := a.counts()
			lines, dropped, failures = lines+l, dropped+d, failures+f
		}
	}
	return lines, dropped, failures
}

// waiting are the lines that have been handed over and are not written.
func (a *AccessLog) waiting() (lines uint64) {
	for _, l := range a.lanes {
		lines += uint64(max(l.lines.Load(), 0))
	}
	return lines
}

func (a *AccessLog) counts() (lines, dropped, failures uint64) {
	dropped = a.lost.Load()
	for _, l := range a.lanes {
		dropped += l.dropped.Load()
	}
	return a.written.Load(), dropped, a.failures.Load()
}

// Reopen opens the destination anew where it is a file. If that fails, the old one is written on.
func (a *AccessLog) Reopen() error {
	done := make(chan error, 1)
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	for ask := a.reopen; ; ask = nil {
		select {
		case ask <- done:
		case err := <-done:
			return err
		case <-a.stopped:
			return fmt.Errorf("cannot reopen access log: it is closed")
		case <-t.C: // the writer writes out what it has before it opens anew
			return fmt.Errorf("cannot reopen access log: its destination has taken nothing for %v", closeTimeout)
		}
	}
}

// Abandon closes a log that no Observer was given. A nil one need not be.
func (a *AccessLog) Abandon() {
	if a != nil {
		_ = a.close()
	}
}

// close writes what has been handed over, for at most closeTimeout, and ends the writer.
func (a *AccessLog) close() error {
	a.once.Do(func() { close(a.stop) })
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-a.stopped:
		return nil
	case <-t.C:
		return fmt.Errorf("cannot finish access log: its destination has taken nothing for %v", closeTimeout)
	}
}

// run is the writer.
func (a *AccessLog) run() {
	defer close(a.stopped)
	ticker := time.NewTicker(writerTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.drain()
		case done := <-a.reopen:
			a.drain()
			done <- a.sink.reopen()
		case <-a.stop:
			a.drain()
			if err := a.sink.close(); err != nil {
				a.complain(err)
			}
			return
		}
	}
}

// drain writes everything that loops have handed over, until there is nothing.
func (a *AccessLog) drain() {
	for more := true; more; {
		more = false
		for _, l := range a.lanes {
			for b := l.takeFull(); b != nil; {
				next := b.next
				a.write(b)
				l.giveBack(b)
				b, more = next, true
			}
		}
	}
}

func (a *AccessLog) write(b *batch) {
	lost, err := a.sink.write(b.buf, b.lines)
	a.written.Add(uint64(b.lines - lost))
	a.lost.Add(uint64(lost))
	if err != nil {
		a.failures.Add(1)
		a.complain(err)
	}
}

func (a *AccessLog) complain(err error) {
	if now := time.Now(); now.Sub(a.complained) >= complainEvery {
		a.complained = now
		a.log.Error("cannot write access log: until there is room its lines are lost, and counted; see df -h and df -i, or log less by sample", "error", err, "failures", a.failures.Load())
	}
}
