package http1

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// headRoom is kept free before what is read, so that a rewritten head fits directly before the body and both leave in
// one write. A longer head is written by itself.
const headRoom = 2 << 10

// lingerTime and lingerBytes bound what is read, and thrown away, after the last answer on a connection. Closing with
// unread bytes would make the kernel send a reset, which destroys the answer before the client has read it.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 16 << 20
	// discardBytes bounds the rest of a request body that is read to keep a connection whose request was answered early.
	discardBytes = 256 << 10
)

// Port is where a connection came in.
type Port interface {
	// Settings are the listener's as now in force.
	Settings() *core.Listener
	// Release is called once when the connection is closed.
	Release(peer netip.AddrPort)
}

// Server serves the HTTP/1.1 connections of one loop.
type Server struct {
	worker *core.Worker
	free   []*exchange
}

// NewServer gives the server of w's loop.
func NewServer(w *core.Worker) *Server { return &Server{worker: w} }

// NewConn gives the handler of a connection just accepted. early is what was already read from it.
func (s *Server) NewConn(c *loop.Conn, p Port, peer netip.AddrPort, tls *core.TLS, early []byte) loop.Handler {
	return &serverConn{server: s, conn: c, port: p, origin: core.Origin{Peer: peer, TLS: tls, Conn: c}, held: append([]byte(nil), early...)}
}

// serverConn is one client's connection. While it is idle this and the loop.Conn are all that it costs.
type serverConn struct {
	server *Server
	conn   *loop.Conn
	port   Port
	origin core.Origin
	held   []byte // received and not yet used: the start of the next request
}

func (s *serverConn) String() string { return "http/1.1 client " + s.origin.Peer.String() }

// Closed tells the port that the connection is gone.
func (s *serverConn) Closed(*loop.Conn) { s.port.Release(s.origin.Peer) }

// Serve takes requests from the connection until nothing more is there or it is over.
func (s *serverConn) Serve(c *loop.Conn) {
	for {
		e := s.receive()
		if e == nil {
			return
		}
		goOn := e.serve()
		if !e.broken {
			s.server.put(e)
		}
		if !goOn {
			return
		}
		if more := len(s.held) > 0 || c.Readable(); more && c.Queue() != nil { // who pipelines gets no more than others
			return
		}
	}
}

// receive reads the next request's head. nil: the connection is idle or closed. A head that is wrong or late is answered
// by the exchange like any other, with an error.
func (s *serverConn) receive() *exchange {
	c, l, settings := s.conn, s.server.worker.Loop, s.port.Settings()
	buf, deadline := s.borrow(), int64(0)
	var pace core.Pace
	end := headRoom + copy(buf[headRoom:], s.held)
	for tried := headRoom; ; {
		if hasNewline(buf[tried:end]) || end-headRoom >= settings.HeaderBytes {
			if e := s.parse(settings, buf, end); e != nil {
				return e
			}
		}
		tried = end
		if end == len(buf)-core.PieceTail {
			buf = s.widen(buf, end)
		}
		n, err := c.ReadNow(buf[end : len(buf)-core.PieceTail])
		if err == loop.ErrAgain && end > headRoom {
			if deadline == 0 {
				deadline = l.Turned() + int64(settings.HeaderTimeout)
				pace = settings.MinRate.NewPace(settings.MinRate.Receive)
			}
			since := l.Now()
			buf, err = s.more(buf, end, pace.Timeout(0), deadline)
			pace.Moved(0, l.Now()-since)
		}
		switch {
		case err == nil:
			end += n
			pace.Moved(int64(n), 0)
		case err == loop.ErrTimeout:
			e := s.server.take(s, settings)
			e.begin(buf, end, end, core.ErrRequestTimeout)
			return e
		default:
			l.Return(buf)
			s.rest(err)
			return nil
		}
	}
}

// parse makes an exchange of the request at the start of buf; nil: its head is not whole yet.
func (s *serverConn) parse(settings *core.Listener, buf []byte, end int) *exchange {
	e := s.server.take(s, settings)
	limits := Limits{HeaderBytes: settings.HeaderBytes, Headers: settings.Headers}
	n, err := ParseRequest(&e.x.Request, buf[headRoom:end], &limits)
	if n == 0 && err == nil {
		s.server.worker.End(e.x)
		s.server.put(e)
		return nil
	}
	e.begin(buf, headRoom+n, end, err)
	return e
}

// more waits for the rest of a head, each time as long as timeout says. Meanwhile the bytes are held without a buffer.
func (s *serverConn) more(buf []byte, end int, timeout, deadline int64) ([]byte, error) {
	c, l := s.conn, s.server.worker.Loop
	s.held = append(s.held[:0], buf[headRoom:end]...)
	l.Return(buf)
	c.ReadTimeout, c.Deadline = timeout, deadline
	err := c.WaitRead()
	c.Deadline = 0
	buf = s.borrow()
	copy(buf[headRoom:], s.held)
	return buf, err
}

// widen exchanges a buffer that is full for a larger one: into none nothing would be read, for ever. config bounds HeaderBytes so that a
// second one is not needed.
func (s *serverConn) widen(buf []byte, end int) []byte {
	s.held = append(s.held[:0], buf[headRoom:end]...)
	s.server.worker.Loop.Return(buf)
	buf = s.borrow()
	copy(buf[headRoom:], s.held)
	return buf
}

// borrow gives a buffer that takes what is held. After a long body that may be as much as was read of it at once.
func (s *serverConn) borrow() []byte {
	return s.server.worker.Loop.BorrowFor(headRoom + len(s.held) + core.PieceTail + 1)
}

// rest leaves the connection to the loop until its next request, or closes it.
func (s *serverConn) rest(err error) {
	if err == loop.ErrAgain && !s.server.worker.Impatient() {
		s.held = nil
		s.conn.Idle(s.server.worker.Loop.Now() + int64(s.port.Settings().IdleTimeout))
		return
	}
	s.conn.Close()
}

func hasNewline(b []byte) bool { return bytes.IndexByte(b, '\n') >= 0 }

// take gives an exchange for a request of s.
func (s *Server) take(c *serverConn, settings *core.Listener) *exchange {
	var e *exchange
	if n := len(s.free); n > 0 {
		e = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		e = &exchange{}
	}
	e.conn, e.x = c, s.worker.Begin()
	e.x.Listener, e.x.Downstream = settings, e
	return e
}

func (s *Server) put(e *exchange) {
	e.conn, e.x = nil, nil
	if len(s.free) < 256 {
		s.free = append(s.free, e)
	}
}
