package observe

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core"
)

// While an access log that takes nothing is replaced its counts stay, and what it never wrote counts as dropped.
func TestAccessLogCountsStay(t *testing.T) {
	s := newSite(t, 1)
	sink := &stuckSink{}
	const total = 10
	add := func() {
		t.Helper()
		s.on(t, 0, func(x *core.Exchange) {
			for range total {
				s.Observe(x)
			}
		})
	}
	if err := s.SetAccessLog(newAccessLog(sink, LogSpec{Sample: 1, Queue: 1000}, 1, s.log.Logger())); err != nil {
		t.Fatal(err)
	}
	add()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if lines, _, _ := s.logCounts(); lines == total {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is written")
		}
	}
	sink.mu.Lock()
	add()
	replaced := make(chan error, 1)
	go func() { replaced <- s.SetAccessLog(nil) }()
	for replacing := true; replacing; time.Sleep(10 * time.Millisecond) {
		if lines, _, _ := s.logCounts(); lines != total {
			t.Fatalf("%d lines of %d are counted", lines, total)
		}
		select {
		case err := <-replaced:
			if replacing = false; err == nil {
				t.Error("lines that nobody takes are told to be written")
			}
		default:
		}
	}
	if lines, dropped, _ := s.logCounts(); lines != total || dropped != total {
		t.Errorf("%d lines and %d dropped", lines, dropped)
	}
	sink.mu.Unlock()
}

// A FIFO that nobody reads holds up neither who opens a log nor who has it opened anew.
func TestAccessLogToAFIFO(t *testing.T) {
	s := newSite(t, 1)
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	soon := func(what string, fails bool, do func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			if (err != nil) != fails {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s takes for ever", what)
		}
	}
	var log *AccessLog
	open := func() (err error) {
		log, err = OpenAccessLog(LogSpec{To: path, Sample: 1, Queue: 100}, 1, s.log.Logger())
		return err
	}
	soon("a log without a reader", true, open)
	reader, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	soon("a log", false, open)
	if err := unix.Close(reader); err != nil {
		t.Fatal(err)
	}
	soon("to open it anew without a reader", true, log.Reopen)
	soon("its end", false, log.close)
}

// stuckReopen is a sink that cannot be opened anew before it is let go.
type stuckReopen struct {
	stuckSink
	release chan struct{}
}

func (s *stuckReopen) reopen() error { <-s.release; return nil }

// Whoever has a log opened anew waits for no longer than a bound, also once that has begun.
func TestReopenDoesNotWait(t *testing.T) {
	s := newSite(t, 1)
	sink := &stuckReopen{release: make(chan struct{})}
	a := newAccessLog(sink, LogSpec{Sample: 1, Queue: 100}, 1, s.log.Logger())
	done := make(chan error, 1)
	go func() { done <- a.Reopen() }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it is told that the log was opened anew")
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for ever")
	}
	close(sink.release)
	if err := a.close(); err != nil {
		t.Error(err)
	}
}
