package loop

import (
	"io"
	"testing"
	"time"
)

// Splice moves what it is told to and no more, waits on both sides, and says what arrived when the source ends.
func TestSplice(t *testing.T) {
	const size = 12 << 20
	l, _ := start(t, Options{})
	src, from := used(t, l)
	dst, to := used(t, l)
	sent, begin := make(chan error, 1), make(chan struct{})
	go func() {
		out := make([]byte, size)
		pattern(out, 1, 0)
		<-begin
		_, err := from.Write(out)
		_ = from.CloseWrite()
		sent <- err
	}()
	done := spawn(l, func() {
		defer dst.Close()
		defer src.Close()
		src.readable = true // in vain
		first, wrote, err := l.Splice(dst, src, 1_000_001, new(int64))
		if first != 1_000_001 || wrote || err != nil {
			t.Errorf("moved %d bytes: %t, %v", first, wrote, err)
		}
		rest, wrote, err := l.Splice(dst, src, size, new(int64))
		if first+rest != size || wrote || err != io.EOF {
			t.Errorf("then moved %d bytes: %t, %v", rest, wrote, err)
		}
	})
	eventually(t, l, "the task waits for the sender", func() bool { return src.reader != nil && src.reader.parked && !src.reader.ready })
	close(begin)
	eventually(t, l, "the task waits for the reader", func() bool { return dst.writer != nil })
	all, err := io.ReadAll(to)
	if at := differs(all, 1, 0); err != nil || len(all) != size || at >= 0 {
		t.Errorf("got %d bytes, first wrong one at %d: %v", len(all), at, err)
	}
	receive(t, done, "the task's end")
	check(t, receive(t, sent, "the sender's end"))
	on(t, l, func() {
		if len(l.pipes) != 1 {
			t.Errorf("%d pipes are kept", len(l.pipes))
		}
	})
}

// When the destination fails, Splice says so, and the pipe, which still holds bytes, is nobody's next.
func TestSpliceToAFailingDestination(t *testing.T) {
	for _, how := range []string{"reset", "timeout"} {
		t.Run(how, func(t *testing.T) {
			l, _ := start(t, Options{})
			src, from := used(t, l)
			dst, to := used(t, l)
			go func() {
				for p := make([]byte, BufferBytes); ; {
					if _, err := from.Write(p); err != nil {
						return
					}
				}
			}()
			want := ErrReset
			if how == "timeout" {
				want, dst.WriteTimeout = ErrTimeout, int64(30*time.Millisecond)
			}
			done := spawn(l, func() {
				if _, wrote, err := l.Splice(dst, src, 1<<40, new(int64)); !wrote || err != want {
					t.Errorf("%t, %v", wrote, err)
				}
				if len(l.pipes) != 0 {
					t.Error("the pipe is kept with what it holds")
				}
				src.Reset()
				src.Close()
				dst.Close()
			})
			if how == "reset" {
				eventually(t, l, "the task waits for the reader", func() bool { return dst.writer != nil })
				check(t, to.SetLinger(0))
				check(t, to.Close())
			}
			receive(t, done, "the task's end")
		})
	}
}
