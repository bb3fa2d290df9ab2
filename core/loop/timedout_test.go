package loop

import (
	"syscall"
	"testing"
)

// A connection that the kernel has given up, since its peer is silent, has not ended well: what comes after the error is no end of file.
func TestTimedOutIsNoEnd(t *testing.T) {
	for _, e := range []syscall.Errno{syscall.ETIMEDOUT, syscall.EHOSTUNREACH} {
		c := &Conn{}
		_ = c.fail(e)
		if err := c.end(); err != ErrReset {
			t.Errorf("after %v: %v, want %v", e, err, ErrReset)
		}
	}
}
