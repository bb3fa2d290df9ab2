package compile

import (
	"context"
	"sync"
)

// joins lets those who ask the same at once, from whatever loops, wait for one answer. Any goroutine may use it.
type joins[A any] struct {
	mu   sync.Mutex
	open map[string]*join[A]
}

type join[A any] struct {
	done    chan struct{}
	answer  A
	givenUp bool // the one who asked has left: nothing is said of the answer
}

// do gives what ask says, or said to somebody else who had asked the same; false: ctx is over. One who waits for somebody that leaves asks
// for himself.
func (s *joins[A]) do(ctx context.Context, key string, ask func() A) (answer A, ok bool) {
	for {
		s.mu.Lock()
		j := s.open[key]
		if j == nil {
			return s.lead(ctx, key, ask), true
		}
		s.mu.Unlock()
		select {
		case <-j.done:
			if !j.givenUp {
				return j.answer, true
			}
		case <-ctx.Done():
			return answer, false
		}
	}
}

// lead asks. It is called with the lock, which it releases.
func (s *joins[A]) lead(ctx context.Context, key string, ask func() A) A {
	j := &join[A]{done: make(chan struct{}), givenUp: true}
	if s.open == nil {
		s.open = map[string]*join[A]{}
	}
	s.open[key] = j
	s.mu.Unlock()
	defer func() { // also after a panic
		s.mu.Lock()
		delete(s.open, key)
		s.mu.Unlock()
		close(j.done)
	}()
	j.answer = ask()
	j.givenUp = ctx.Err() == context.Canceled
	return j.answer
}
