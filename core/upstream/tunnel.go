package upstream

import (
	"errors"
	"io"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// tunnel relays bytes both ways after an upgrade, each way in a task of its own. It ends when both ways have ended, when
// one fails, when nothing has moved either way for the idle timeout, or when it has lived for as long as it may.
type tunnel struct {
	loop     *loop.Loop
	client   end
	upstream end
	idle     int64 // nanoseconds
	moved    int64 // instant of the last byte, either way
	owner    loop.Task
	open     bool // the task of the client's way runs
}

// end is one end of a tunnel: a connection, or a stream of one.
type end interface {
	// receive gives what the peer has sent, and waits for it: loop.ErrTimeout after the idle timeout, io.EOF after its end. The
	// bytes are valid until release, which must follow.
	receive() ([]byte, error)
	release()
	send(p []byte) error
	// closeSend tells the peer that nothing more comes.
	closeSend()
	// cut ends it both ways, now.
	cut()
	// reset is cut so that the peer does not take what it has for all there was.
	reset()
}

// Tunnel relays until both sides have ended.
func (c *conn) Tunnel(x *core.Exchange) {
	idle := int64(c.share.upstream.Settings().Tunnel)
	c.share.tunnel(x, newConnEnd(c.raw, c.transport.Buffered(), idle))
}

// Tunnel relays until both sides have ended.
func (r *ride) Tunnel(x *core.Exchange) {
	s := r.mux.share
	s.tunnel(x, newStreamEnd(r.transport.(core.Stream), int64(s.upstream.Settings().Tunnel)))
}

// tunnel relays between x's client and an endpoint.
func (s *share) tunnel(x *core.Exchange, upstream end) {
	l, set := s.worker.Loop, s.upstream.Settings()
	l.Watch(nil)
	s.tunnels++
	s.worker.BeginTunnel()
	defer func() {
		s.tunnels--
		s.worker.EndTunnel()
	}()
	t := &tunnel{loop: l, upstream: upstream, owner: l.Self(), open: true, idle: int64(set.Tunnel), moved: l.Now()}
	if stream, ok := x.Downstream.(core.Stream); ok {
		t.client = newStreamEnd(stream, t.idle)
	} else {
		t.client = newConnEnd(x.Downstream.Conn(), x.Downstream.Buffered(), t.idle)
	}
	if set.TunnelLife > 0 {
		life := l.NewTimer(t.cut)
		life.At(l.Now() + int64(set.TunnelLife))
		defer life.Stop()
	}
	l.Go(func() {
		defer func() {
			t.open = false
			t.owner.Wake()
		}()
		x.Sent.RequestBody += t.way(t.upstream, t.client)
	})
	x.Sent.ResponseBody += t.way(t.client, t.upstream)
	for t.open {
		if l.Park(0) != nil {
			t.cut()
			l.Yield()
		}
	}
}

// cut closes both sides, and with them both ways.
func (t *tunnel) cut() {
	t.client.cut()
	t.upstream.cut()
}

// way relays from src to dst until src ends; it returns the bytes moved.
func (t *tunnel) way(dst, src end) (total int64) {
	for {
		n, err := t.step(dst, src)
		total += n
		switch {
		case err == nil:
		case err == io.EOF:
			dst.closeSend()
			return total
		case err == loop.ErrTimeout && t.loop.Now()-t.moved < t.idle: // the other way is alive
		case err == loop.ErrTimeout, err == loop.ErrStopped, err == loop.ErrClosed:
			t.cut()
			return total
		case err == errNotTaken: // dst has gone. What it said before is the other way's, which ends when that is through
			return total
		default: // a reset goes through from end to end (RFC 9113, 8.5)
			dst.reset()
			src.cut()
			return total
		}
	}
}

// errNotTaken is that bytes were lost on their way to a peer that has gone.
var errNotTaken = errors.New("the peer takes nothing more")

// lost is what it means that err kept bytes from leaving: not an idle wait, whatever it was.
func lost(err error) error {
	if err == loop.ErrTimeout || err == loop.ErrStopped {
		return loop.ErrClosed
	}
	return errNotTaken
}

// step moves what is there.
func (t *tunnel) step(dst, src end) (int64, error) {
	p, err := src.receive()
	if err != nil {
		return 0, err
	}
	n := int64(len(p))
	err = dst.send(p)
	t.moved = t.loop.Now()
	src.release()
	if err != nil {
		return n, lost(err)
	}
	from, direct := src.(*connEnd)
	to, both := dst.(*connEnd)
	if !direct || !both || !from.filled || to.conn.Encrypted() || from.conn.Encrypted() {
		return n, nil
	}
	moved, wrote, err := t.loop.Splice(to.conn, from.conn, bulkBytes, &t.moved)
	if wrote { // what was between the two is lost
		err = lost(err)
	}
	return n + moved, err
}

// bulkBytes is moved inside the kernel at a time once a read has filled its buffer.
const bulkBytes = 1 << 20

// connEnd is a connection that has become one end of a tunnel.
type connEnd struct {
	conn   *loop.Conn
	early  []byte // came before the tunnel was opened; valid as long as the exchange
	buf    []byte // borrowed
	filled bool   // the last read took as much as there was room for
}

func newConnEnd(c *loop.Conn, early []byte, idle int64) *connEnd {
	c.Tunnel, c.HalfClose, c.Deadline, c.ReadTimeout, c.WriteTimeout = true, true, 0, idle, idle
	return &connEnd{conn: c, early: early}
}

func (e *connEnd) receive() ([]byte, error) {
	if p := e.early; len(p) > 0 {
		e.early = nil
		return p, nil
	}
	if err := e.conn.WaitRead(); err != nil {
		return nil, err
	}
	e.buf = e.conn.Loop().Borrow()
	n, err := e.conn.Read(e.buf)
	e.filled = n == len(e.buf)
	if err != nil {
		e.release()
	}
	return e.buf[:n], err
}

func (e *connEnd) release() {
	if e.buf != nil {
		e.conn.Loop().Return(e.buf)
		e.buf = nil
	}
}

func (e *connEnd) send(p []byte) error {
	_, err := e.conn.Write(p)
	return err
}

func (e *connEnd) closeSend() { e.conn.CloseWrite() }
func (e *connEnd) cut()       { e.conn.Close() }

func (e *connEnd) reset() {
	e.conn.Reset()
	e.conn.Close()
}

// streamEnd is a stream that has become one end of a tunnel.
type streamEnd struct{ stream core.Stream }

func newStreamEnd(s core.Stream, idle int64) streamEnd {
	s.OpenTunnel(time.Duration(idle))
	return streamEnd{s}
}

func (e streamEnd) receive() ([]byte, error) { return e.stream.Receive() }
func (e streamEnd) release()                 { e.stream.Release() }
func (e streamEnd) cut()                     { e.stream.Cancel() }
func (e streamEnd) reset()                   { e.stream.Cancel() }

func (e streamEnd) send(p []byte) error {
	if err := e.stream.Send(p); err != nil {
		return err
	}
	return nil
}

func (e streamEnd) closeSend() {
	if e.stream.CloseSend() != nil {
		e.stream.Cancel()
	}
}
