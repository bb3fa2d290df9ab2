package observe

import (
	"testing"
	"time"

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
