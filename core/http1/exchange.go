package http1

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// exchange is one request on a client's connection, and the downstream side of its core.Exchange.
type exchange struct {
	conn     *serverConn
	x        *core.Exchange
	body     requestBody
	pace     core.Pace   // of the answer
	err      *core.Error // the request could not be read
	keep     bool        // the connection goes on after the answer
	answered bool        // the head of the answer has been sent
	failed   bool        // the connection cannot be used any more
	broken   bool        // a panic happened: nothing of it is to be trusted, and it is not used again
}

// begin takes over the buffer in which the request stands: its head up to start, and what has come after it.
func (e *exchange) begin(buf []byte, start, end int, err *core.Error) {
	s, x := e.conn, e.x
	l := s.server.worker.Loop
	e.err, e.answered, e.failed, e.keep = err, false, false, false
	r := &x.Listener.MinRate
	e.pace = r.NewPace(r.Send)
	x.Times.Start = s.conn.Came()
	s.origin.Identify(x)
	m := &x.Request
	if err != nil {
		m.Reset()
		l.Return(buf)
		s.held = s.held[:0]
		e.body.done = true
		return
	}
	m.Keep(buf[headRoom:start])
	if m.Upgrade && m.ContentLength <= 0 && !m.Chunked {
		m.Protocol = m.Get(core.FieldUpgrade)
	}
	RemoveHopByHop(m)
	e.body.begin(e, buf, start, end)
}

// serve takes the exchange through the gateway and then says whether the connection goes on; if not, it is closed.
func (e *exchange) serve() bool {
	e.broken = true
	goOn := e.attempt()
	if e.broken {
		e.apologize()
	}
	return goOn
}

// attempt is serve until a panic, which it ends.
func (e *exchange) attempt() bool {
	s, x := e.conn, e.x
	c, w := s.conn, s.server.worker
	defer func() {
		if !e.broken {
			return
		}
		if p := recover(); p != nil {
			w.Loop.Panicked(p)
		} else { // Goexit: nothing comes after this
			c.Close()
			w.Abandon(x)
		}
	}()
	c.HalfClose, c.Deadline = x.Listener.HalfClose, 0
	c.ReadTimeout, c.WriteTimeout = int64(x.Listener.BodyTimeout), int64(x.Listener.WriteTimeout)
	if e.err != nil {
		w.Refuse(x, e.err)
	} else {
		w.Serve(x)
	}
	goOn := e.finish()
	w.End(x)
	e.broken = false
	return goOn
}

// apologize answers 500 after a panic, unless an answer has begun, and closes the connection.
func (e *exchange) apologize() {
	c, w := e.conn.conn, e.conn.server.worker
	if e.answered || c.Closed() {
		c.Close()
		w.Abandon(e.x)
		return
	}
	uploading := e.x.Uploading // beside this task, which reads the connection
	w.Apologize(e.x)
	if !uploading && !c.Closed() {
		e.linger()
	}
	c.Close()
}

// finish brings the connection to the start of the next request, or closes it.
func (e *exchange) finish() bool {
	c := e.conn.conn
	switch {
	case c.Closed():
		e.body.release()
		return false
	case e.failed || !e.answered:
		e.body.release()
		c.Close()
		return false
	case e.keep && e.body.discard():
		e.body.release()
		return true
	}
	clean := e.err == nil && e.body.done && len(e.conn.held) == 0 && !c.Readable()
	e.body.release()
	if !clean {
		e.linger()
	}
	c.Close()
	return false
}

// linger lets the client read the answer before the connection goes.
func (e *exchange) linger() {
	c := e.conn.conn
	l := c.Loop()
	c.CloseWrite()
	c.ReadTimeout, c.Deadline = 0, l.Now()+int64(lingerTime)
	for n := 0; n < lingerBytes; {
		if c.WaitRead() != nil {
			return
		}
		buf := l.Borrow()
		k, err := c.Read(buf)
		l.Return(buf)
		if err != nil {
			return
		}
		n += k
	}
}

// Conn is the client's connection.
func (e *exchange) Conn() *loop.Conn { return e.conn.conn }

// Buffered is what has come after the request.
func (e *exchange) Buffered() []byte { return e.conn.held }
