package upstream

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// bulkBytes is moved inside the kernel at a time once a read has filled its buffer.
const bulkBytes = 1 << 20

// tunnel relays bytes both ways after an upgrade, each way in a task of its own. It ends when both ways have ended, when
// one fails, or when nothing has moved either way for the idle timeout.
type tunnel struct {
	loop     *loop.Loop
	client   *loop.Conn
	upstream *loop.Conn
	idle     int64
	moved    int64 // instant of the last byte, either way
	owner    loop.Task
	open     bool // the task of the client's way runs
}

// Tunnel relays until both sides have ended.
func (c *conn) Tunnel(x *core.Exchange) {
	l := c.share.worker.Loop
	l.Watch(nil)
	t := &tunnel{loop: l, client: x.Downstream.Conn(), upstream: c.raw, owner: l.Self(), open: true,
		idle: int64(c.share.upstream.Settings().Idle), moved: l.Now()}
	for _, side := range [...]*loop.Conn{t.client, t.upstream} {
		side.HalfClose, side.Deadline, side.ReadTimeout, side.WriteTimeout = true, 0, t.idle, t.idle
	}
	early, late := x.Downstream.Buffered(), c.transport.Buffered()
	l.Go(func() {
		defer func() {
			t.open = false
			t.owner.Wake()
		}()
		x.Sent.RequestBody += t.way(t.upstream, t.client, early)
	})
	x.Sent.ResponseBody += t.way(t.client, t.upstream, late)
	for t.open {
		if l.Park(0) != nil {
			t.end()
			l.Yield()
		}
	}
}

// end closes both sides, and with them both ways.
func (t *tunnel) end() {
	t.client.Close()
	t.upstream.Close()
}

// way relays from src to dst, first what was already read, until src ends; it returns the bytes moved.
func (t *tunnel) way(dst, src *loop.Conn, first []byte) (total int64) {
	if len(first) > 0 {
		if _, err := dst.Write(first); err != nil {
			t.end()
			return 0
		}
		total = int64(len(first))
	}
	for {
		n, err := t.step(dst, src)
		total += n
		if n > 0 {
			t.moved = t.loop.Now()
		}
		switch {
		case err == nil:
		case err == io.EOF:
			dst.CloseWrite()
			return total
		case err == loop.ErrTimeout && t.loop.Now()-t.moved < t.idle: // the other way is alive
		default:
			t.end()
			return total
		}
	}
}

// step moves what is there.
func (t *tunnel) step(dst, src *loop.Conn) (int64, error) {
	if err := src.WaitRead(); err != nil {
		return 0, err
	}
	buf := t.loop.Borrow()
	n, err := src.Read(buf)
	if n > 0 {
		_, err = dst.Write(buf[:n])
		if err == loop.ErrTimeout { // part of it may be gone: not to be taken for an idle wait
			err = loop.ErrClosed
		}
	}
	t.loop.Return(buf)
	if err != nil || n < len(buf) || dst.Encrypted() || src.Encrypted() {
		return int64(n), err
	}
	moved, wrote, err := t.loop.Splice(dst, src, bulkBytes)
	if wrote { // what was between the two is lost
		err = loop.ErrClosed
	}
	return int64(n) + moved, err
}
