package loop

import (
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Whenever something comes, just before the loop parks or just after, it is noticed.
func TestGateLosesNothing(t *testing.T) {
	l, _ := start(t, Options{})
	fd := keepAlive(t, l, serve(echo))
	// Somebody else has the netpoller asked all the time, which so forgets what it saw before the loop waits.
	from, to, err := os.Pipe()
	check(t, err)
	var other sync.WaitGroup
	other.Go(func() { _, _ = io.Copy(io.Discard, from) })
	ended := make(chan struct{})
	other.Go(func() {
		for {
			select {
			case <-ended:
				_ = to.Close()
				return
			default:
				_, _ = to.Write([]byte{0})
				runtime.Gosched()
			}
		}
	})
	defer func() { close(ended); other.Wait(); _ = from.Close() }()
	p, random := make([]byte, 100), rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		for until := time.Now().Add(time.Duration(random.IntN(20_000))); time.Now().Before(until); { // a sleep is too coarse
		}
		ask(t, fd, p)
	}
}
