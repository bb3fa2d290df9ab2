package tls

import (
	"context"
	"time"
)

const (
	defaultWatch = 10 * time.Second
	minWatch     = time.Second
)

// Watch calls Reload every so often, until ctx ends: 10 s unless given, at least 1 s. It looks at names rather than at open
// files, so files may be written in place, renamed over or reached by links that are swapped. Looking at 10,000 pairs takes
// some 30 ms of CPU time. report hears of every change, and of problems when they differ from the last time: that none
// is left is told by a call with neither.
func (s *Store) Watch(ctx context.Context, every time.Duration, report func(changed []string, problems []error)) {
	watch(ctx, every, s.Reload, report)
}

func watch(ctx context.Context, every time.Duration, reload func() ([]string, []error), report func([]string, []error)) {
	if every <= 0 {
		every = defaultWatch
	}
	ticker := time.NewTicker(max(every, minWatch))
	defer ticker.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, problems := reload()
		text := ""
		for _, p := range problems {
			text += p.Error() + "\n"
		}
		if len(changed) > 0 || text != last {
			report(changed, problems)
		}
		last = text
	}
}
