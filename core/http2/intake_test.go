package http2

import (
	"math/rand/v2"
	"testing"
)

// TestIntakeWidens takes whole windows, with a taker that waits for the peer and with one that does not.
func TestIntakeWidens(t *testing.T) {
	w := intake{width: streamWindow, left: streamWindow}
	pass := func(waited bool, most int64) int64 {
		for n := w.width; n > 0; n -= 1 << 10 {
			w.waited = waited
			w.left -= min(n, 1<<10)
			w.take(min(n, 1<<10), most)
		}
		return w.width
	}
	for i, c := range []struct {
		waited     bool
		most, want int64
	}{
		{false, wideWindow, streamWindow}, // never less than it was at first
		{true, wideWindow, 2 * streamWindow},
		{true, wideWindow, 4 * streamWindow},
		{true, wideWindow, 8 * streamWindow},
		{true, wideWindow, wideWindow},
		{true, wideWindow, wideWindow},
		{false, wideWindow, wideWindow / 2}, // the taker is what limits
		{true, wideWindow / 3, wideWindow / 3},
		{true, wideWindow / 20, streamWindow}, // there are many others
		{true, wideWindow, 2 * streamWindow},
	} {
		if got := pass(c.waited, c.most); got != c.want {
			t.Fatalf("step %d: %d bytes wide, want %d", i, got, c.want)
		}
	}
}

// TestIntakeAddsUp sends and takes at random: what the peer may send, what is here and what is not yet given back are the whole
// width, and a peer that has used its window up gets more once all was taken.
func TestIntakeAddsUp(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		w := intake{width: streamWindow, left: streamWindow}
		held := int64(0)
		for range 1000 {
			if n := min(random.Int64N(1<<random.IntN(20)), w.left); n > 0 {
				w.left -= n
				held += n
			}
			if random.IntN(3) == 0 {
				w.waited = true
			}
			if n := random.Int64N(held + 1); n > 0 {
				held -= n
				if due := w.take(n, streamWindow+random.Int64N(wideWindow)); due < 0 || due > MaxWindow {
					t.Fatalf("%d bytes are given back: %+v", due, w)
				}
			}
			if w.left+held+w.returned != w.width || w.left < 0 || w.width < streamWindow || w.width > wideWindow+streamWindow {
				t.Fatalf("%d bytes are here: %+v", held, w)
			}
		}
		if held > 0 {
			w.take(held, wideWindow)
		}
		if w.left == 0 {
			t.Fatalf("nothing is here, and nothing may come: %+v", w)
		}
	}
}
