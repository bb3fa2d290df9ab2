package tls

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// KeepStapled asks the responders of the certificates, at once and then before each response ends, and staples what they
// answer, until ctx ends; it returns when all that it began has ended. No handshake waits for it. report, which may be
// called by several goroutines at once, hears why one could not be stapled: the first of failures in a row, each if clients
// may refuse the certificate for want of it, and always of a revocation.
func (s *Store) KeepStapled(ctx context.Context, report func(file string, missing bool, err error)) {
	staples := s.options.Staples
	if staples == nil {
		return
	}
	var group sync.WaitGroup
	defer group.Wait()
	answered := make(chan struct{}, 1)
	ticker := time.NewTicker(staples.timing.look)
	defer ticker.Stop()
	for {
		now := time.Now()
		s.restaple(now)
		for _, l := range s.due(now) {
			group.Go(func() {
				of := &l.good.status
				first, err := staples.ask(ctx, of)
				missing := of.must && staples.current(of.id, time.Now()) == nil
				if err != nil && ctx.Err() == nil && (first || missing) {
					report(l.label(), missing, err)
				}
				select {
				case answered <- struct{}{}:
				default:
				}
			})
		}
		staples.sweep(now)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-answered:
		}
	}
}

// due gives the certificates whose responders are to be asked now, and are being asked from here on.
func (s *Store) due(now time.Time) (all []slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.slots {
		if l.good != nil && l.good.status.can() && s.options.Staples.begin(l.good.status.id, now) {
			all = append(all, slot{source: l.source, good: l.good})
		}
	}
	return all
}

// restaple publishes anew if a staple came or ended.
func (s *Store) restaple(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.slots {
		if l.good != nil && l.good.status.can() && !bytes.Equal(s.options.Staples.current(l.good.status.id, now), l.good.cert.OCSPStaple) {
			s.defaultProblem = s.publish()
			return
		}
	}
}
