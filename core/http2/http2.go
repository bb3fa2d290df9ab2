// Package http2 speaks HTTP/2 (RFC 9113) with clients.
//
// A connection is a handler of the loop that reads frames while there are any and then leaves the connection idle, whether
// streams are open or not: it costs no coroutine. Each request is a task of its own, which takes a core.Exchange through the
// gateway. What the tasks of a turn have to send gathers in the connection's output, which one more task writes at the end
// of that turn, so that the answers of many streams leave in one write. All of it happens on one loop: nothing locks.
//
// A stream counts against the limit of streams until its task has ended, not only until the client reset it: a client that
// opens and resets streams cannot make more of them work than one that waits for its answers.
package http2

import (
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

const (
	maxStreams   = 128        // that a client may have open at once
	streamWindow = 64<<10 - 1 // bytes of a request body that may come before any was taken: the protocol's initial value
	connWindow   = 1 << 20    // the same, of all streams of a connection together
	// lingerTime is how long a failed connection is read from, so that its last words are not destroyed by a reset.
	lingerTime = time.Second
	// drainTime is what a client has to learn that no more streams are taken, before those that come late are refused.
	drainTime = time.Second
)

// Port is where a connection came in.
type Port interface {
	// Settings are the listener's as now in force.
	Settings() *core.Listener
	// Draining says that the listener takes no more connections, and those that are open should end.
	Draining() bool
	// Release is called once when the connection is closed.
	Release(peer netip.AddrPort)
}

// Server serves the HTTP/2 connections of one loop.
type Server struct {
	worker  *core.Worker
	conns   map[*conn]struct{}
	scratch Scratch
	free    []*stream
	bodies  [len(bodySizes)][][]byte
	counts  Counters
}

// Counters are a Server's; Connections and Streams are of now, the others only grow.
type Counters struct {
	Connections, Streams int
	Resets               uint64            // streams that clients reset
	Calm                 [calmCount]uint64 // connections ended for abuse, by what
}

// NewServer gives the server of w's loop.
func NewServer(w *core.Worker) *Server { return &Server{worker: w, conns: map[*conn]struct{}{}} }

// Counters are the server's counts as of now.
func (s *Server) Counters() Counters {
	c := s.counts
	c.Connections = len(s.conns)
	return c
}

// NewConn gives the handler of a connection just accepted. early is what was already read from it.
func (s *Server) NewConn(c *loop.Conn, p Port, peer netip.AddrPort, tls *core.TLS, early []byte) loop.Handler {
	h := &conn{server: s, raw: c, port: p, origin: core.Origin{Peer: peer, TLS: tls, Conn: c}, held: s.hold(early)}
	h.open()
	s.conns[h] = struct{}{}
	return h
}

// Drain makes every connection end after the streams that are open now or come within drainTime (RFC 9113, 6.8).
func (s *Server) Drain() {
	for c := range s.conns {
		c.drain()
	}
}

// DrainPort is Drain for the connections that came in at p.
func (s *Server) DrainPort(p Port) {
	for c := range s.conns {
		if c.port == p {
			c.drain()
		}
	}
}

// take gives a stream.
func (s *Server) take(c *conn, id uint32) *stream {
	var t *stream
	if n := len(s.free); n > 0 {
		t = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		t = &stream{}
		t.run = t.serve
	}
	t.conn, t.id = c, id
	t.window, t.credit, t.declared, t.urgency = c.initialWindow, streamWindow, -1, defaultUrgency
	t.x = s.worker.Begin()
	t.x.Listener, t.x.Downstream = c.port.Settings(), t
	s.counts.Streams++
	return t
}

// maxFree bounds the streams that a server keeps for later.
const maxFree = 256

func (s *Server) put(t *stream) {
	s.counts.Streams--
	if len(s.free) < maxFree {
		*t = stream{run: t.run}
		s.free = append(s.free, t)
	}
}
