package compile

import (
	"context"
	"sync"
	"time"
)

// background is a goroutine that works beside the loops until it is stopped. The zero background has not begun.
type background struct {
	cancel context.CancelFunc // nil: it has not begun
	done   sync.WaitGroup
}

// begin has run work on a goroutine of its own, until its context ends. It is called once.
func (b *background) begin(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.done.Go(func() { run(ctx) })
}

// stop ends it, and returns when it has ended.
func (b *background) stop() {
	if b.cancel != nil {
		b.cancel()
		b.done.Wait()
	}
}

// each calls do in each period until ctx ends.
func each(ctx context.Context, period time.Duration, do func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}
