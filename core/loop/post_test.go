package loop

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Posts of one goroutine run in its order, none is lost, whoever posts: other goroutines, another loop, the loop itself.
func TestPostOrder(t *testing.T) {
	const posters, each = 8, 2000
	l, _ := start(t, Options{})
	other, _ := start(t, Options{})
	var next [posters + 2]int
	wrong, left := 0, (posters+2)*each
	done := make(chan struct{})
	post := func(who, i int) {
		l.Post(func() {
			if next[who] != i {
				wrong++
			}
			next[who]++
			if left--; left == 0 {
				close(done)
			}
		})
	}
	var goroutines sync.WaitGroup
	for who := range posters {
		goroutines.Go(func() {
			for i := range each {
				post(who, i)
			}
		})
	}
	for who, on := range map[int]*Loop{posters: l, posters + 1: other} {
		on.Post(func() {
			for i := range each {
				post(who, i)
			}
		})
	}
	receive(t, done, "all posts")
	goroutines.Wait()
	on(t, l, func() {
		if wrong != 0 {
			t.Errorf("%d posts ran out of order", wrong)
		}
	})
}

// What is posted after a panic or a Goexit waits for what was posted before it.
func TestPostOrderAfterPanic(t *testing.T) {
	l, _ := start(t, Options{})
	order := make(chan string, 2)
	on(t, l, func() {
		l.Post(func() {
			l.Post(func() { order <- "later" })
			panicHere()
		})
		l.Post(func() { order <- "earlier" })
	})
	if first, second := receive(t, order, "the first"), receive(t, order, "the second"); first != "earlier" {
		t.Errorf("%s came before %s", first, second)
	}
}

// Do gives up on a loop that is held; its function runs later all the same.
func TestDoTimeout(t *testing.T) {
	l, _ := start(t, Options{})
	release, ran := make(chan struct{}), make(chan struct{})
	l.Post(func() { <-release })
	if err := l.Do(20*time.Millisecond, func() { close(ran) }); err != ErrLate {
		t.Errorf("Do said: %v", err)
	}
	close(release)
	receive(t, ran, "the late function")
}

// Post and Do on a loop that ends or has ended: no function runs after the end, and nothing is written to a descriptor
// that was the loop's.
func TestPostToAnEndingLoop(t *testing.T) {
	for range 20 {
		l, err := New(Options{})
		check(t, err)
		l.Start()
		var ended atomic.Bool
		var after atomic.Int32
		var posters sync.WaitGroup
		stopPosting := make(chan struct{})
		for range 2 {
			posters.Go(func() {
				for {
					select {
					case <-stopPosting:
						return
					default:
					}
					l.Post(func() {
						if ended.Load() {
							after.Add(1)
						}
					})
				}
			})
		}
		stop(t, l)
		ended.Store(true)
		close(stopPosting)
		posters.Wait()
		src, dst := unixPair(t)
		if l.wakeFD != src && l.wakeFD != dst { // a stranger gets the loop's number
			check(t, unix.Dup3(src, l.wakeFD, unix.O_CLOEXEC))
			closeFD(src)
			src = l.wakeFD
		}
		l.wake()
		left := l.posted.Load()
		l.Post(func() { after.Add(1) })
		if l.posted.Load() != left {
			t.Error("a loop that has ended keeps what is posted")
		}
		if err := l.Do(patience, func() { after.Add(1) }); err != ErrStopped {
			t.Errorf("Do said: %v", err)
		}
		for _, fd := range []int{src, dst} {
			if n, e := read(fd, make([]byte, 8)); n > 0 {
				t.Errorf("%d bytes were written to a stranger's socket: %v", n, e)
			}
			closeFD(fd)
		}
		if after.Load() != 0 {
			t.Errorf("%d functions ran after the end", after.Load())
		}
	}
}
