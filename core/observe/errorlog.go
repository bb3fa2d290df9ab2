package observe

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrorLog is the process's log of events, by log/slog. A line goes into a bounded queue and a goroutine writes it: a
// terminal or pipe that stands still holds up no loop. What does not fit is dropped and counted.
type ErrorLog struct {
	level      slog.LevelVar
	logger     *slog.Logger
	everything *slog.Logger // whatever the level
	queue      *lineQueue
}

// NewErrorLog logs to w from level (debug, info, warn, error) on, as text or json. Close ends its goroutine.
func NewErrorLog(level, format string, w io.Writer) (*ErrorLog, error) {
	at, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	e := &ErrorLog{}
	var make func(w io.Writer, o *slog.HandlerOptions) slog.Handler
	switch format {
	case "text":
		make = func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) }
	case "json":
		make = func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) }
	default:
		return nil, fmt.Errorf("cannot make error log: unknown format %q: text or json", format)
	}
	e.level.Set(at)
	e.queue = newLineQueue(w)
	e.logger = slog.New(make(e.queue, &slog.HandlerOptions{Level: &e.level}))
	e.everything = slog.New(make(e.queue, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return e, nil
}

// Logger is the log itself.
func (e *ErrorLog) Logger() *slog.Logger { return e.logger }

// SetLevel changes the level from now on.
func (e *ErrorLog) SetLevel(level string) error {
	l, err := parseLevel(level)
	if err == nil {
		e.level.Set(l)
	}
	return err
}

// Level is the level in force.
func (e *ErrorLog) Level() string { return strings.ToLower(e.level.Level().String()) }

// Dropped counts the lines that did not fit into the queue, or could not be written.
func (e *ErrorLog) Dropped() uint64 { return e.queue.dropped.Load() }

// Close writes what waits, for at most a second, and ends the goroutine. What is logged afterwards goes straight to w.
func (e *ErrorLog) Close() error { return e.queue.close() }

func parseLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("unknown log level %q: debug, info, warn or error", text)
}

// lineQueue is a writer that does not wait. Each Write is a line.
type lineQueue struct {
	mu      sync.Mutex // held over a write
	w       io.Writer
	lines   chan []byte
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
	closed  atomic.Bool
	dropped atomic.Uint64
}

// maxQueuedLines bounds the error log's queue.
const maxQueuedLines = 1024

// closeTimeout is how long a log's end waits for a destination that does not take its lines.
const closeTimeout = time.Second

func newLineQueue(w io.Writer) *lineQueue {
	q := &lineQueue{w: w, lines: make(chan []byte, maxQueuedLines), stop: make(chan struct{}), stopped: make(chan struct{})}
	go q.run()
	return q
}

// Write never fails: there would be nobody to tell.
func (q *lineQueue) Write(line []byte) (int, error) {
	if q.closed.Load() {
		q.write(line)
		return len(line), nil
	}
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *lineQueue) write(line []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, err := q.w.Write(line); err != nil {
		q.dropped.Add(1) // there is nowhere else to say it
	}
}

func (q *lineQueue) run() {
	defer close(q.stopped)
	for {
		select {
		case line := <-q.lines:
			q.write(line)
		case <-q.stop:
			q.drain()
			return
		}
	}
}

func (q *lineQueue) drain() {
	for {
		select {
		case line := <-q.lines:
			q.write(line)
		default:
			return
		}
	}
}

func (q *lineQueue) close() error {
	q.once.Do(func() {
		q.closed.Store(true)
		close(q.stop)
	})
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-q.stopped:
		q.drain() // what came while the goroutine went
		return nil
	case <-t.C:
		return fmt.Errorf("cannot finish error log: its destination has taken nothing for %v", closeTimeout)
	}
}
