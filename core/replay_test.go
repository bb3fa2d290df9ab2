package core

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/loop"
)

// wordsBody is a body of which each word is a piece.
type wordsBody struct{ words []string }

func (b *wordsBody) Ready() bool { return true }
func (b *wordsBody) Release()    {}

func (b *wordsBody) Next() (Piece, error) {
	if len(b.words) == 0 {
		return Piece{}, io.EOF
	}
	w := b.words[0]
	b.words = b.words[1:]
	buf := make([]byte, PieceRoom+len(w)+PieceTail)
	copy(buf[PieceRoom:], w)
	return Piece{Buf: buf, Start: PieceRoom, End: PieceRoom + len(w), Last: len(b.words) == 0}, nil
}

// send draws so many pieces as an attempt does; -1: all.
func send(t *testing.T, x *Exchange, pieces int) (sent string) {
	t.Helper()
	for ; pieces != 0; pieces-- {
		p, err := x.Request.Body.Next()
		if err != nil {
			t.Fatal(err)
		}
		x.Sent.RequestBody += int64(p.End - p.Start)
		x.KeepForReplay(p)
		sent += string(p.Bytes())
		for i := range p.Buf { // who got a piece may write around it, and its memory is used again
			p.Buf[i] = '!'
		}
		if x.Request.Body.Release(); p.Last {
			return sent
		}
	}
	return sent
}

// TestReplay sends requests again that broke off anywhere: all that was taken comes once more, and then the rest.
func TestReplay(t *testing.T) {
	l, err := loop.New(loop.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	defer func() { _ = l.Stop() }()
	w := NewGateway(&Snapshot{}, nil).NewWorker(l)
	f := func(words []string, limit int, breaks []int, again bool) {
		t.Helper()
		want := ""
		for _, s := range words {
			want += s
		}
		if err := l.Do(5*time.Second, func() {
			x := w.Begin()
			defer w.End(x)
			x.ReplayLimit = limit
			x.Request.Body = &wordsBody{words}
			for _, n := range breaks {
				send(t, x, n)
				if got := x.Replay(); got != again {
					t.Errorf("%q up to %d after %v: may be sent again: %v", words, limit, breaks, got)
				}
				if !again {
					return
				}
			}
			if got := send(t, x, -1); got != want {
				t.Errorf("%q up to %d after %v: %q was sent", words, limit, breaks, got)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	abc := []string{"a", "bb", "ccc"}
	for n := range 4 {
		f(abc, 6, []int{n}, true)
		for k := range 4 {
			f(abc, 6, []int{n, k}, true)
		}
	}
	f(abc, 5, []int{2, 1}, true)
	f(abc, 5, []int{3}, false)
	f(abc, 0, []int{1}, false)
	f(abc, 0, []int{0}, true)
	f([]string{""}, 0, []int{1}, true)
	f([]string{"", "x"}, 0, []int{1}, true)
}
