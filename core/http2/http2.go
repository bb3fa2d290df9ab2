// Package http2 speaks HTTP/2 (RFC 9113) with clients and with upstreams.
//
// A connection is a handler of the loop that reads frames while there are any and then leaves the connection idle, whether
// streams are open or not: it costs no coroutine. Each request of a client is a task of its own, which takes a core.Exchange
// through the gateway; a request to an upstream is a stream that the exchange's task opens. What the tasks of a turn have to
// send gathers in the connection's output, which one more task writes at the end of that turn, so that the messages of many
// streams leave in one write. All of it happens on one loop: nothing locks.
//
// A stream counts against the limit of streams until its task has ended, not only until the client reset it: a client that
// opens and resets streams cannot make more of them work than one that waits for its answers.
package http2

import (
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// defaultStreams is how many streams a client may have open at once where the listener does not say.
const defaultStreams = 128

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
	resources
	conns   map[*serverConn]struct{}
	free    []*serverStream
	streams int
	resets  uint64
}

// Counters are a Server's; Connections and Streams are of now, the others only grow.
type Counters struct {
	Connections, Streams int
	Resets               uint64            // streams that clients reset
	Calm                 [calmCount]uint64 // connections ended for abuse, by what
}

// NewServer gives the server of w's loop.
func NewServer(w *core.Worker) *Server {
	return &Server{resources: newResources(w), conns: map[*serverConn]struct{}{}}
}

// Counters are the server's counts as of now.
func (s *Server) Counters() Counters {
	return Counters{Connections: len(s.conns), Streams: s.streams, Resets: s.resets, Calm: s.calm}
}

// NewConn gives the handler of a connection just accepted. early is what was already read from it.
func (s *Server) NewConn(raw *loop.Conn, p Port, peer netip.AddrPort, tls *core.TLS, early []byte) loop.Handler {
	c := &serverConn{server: s, port: p, origin: core.Origin{Peer: peer, TLS: tls, Conn: raw}}
	c.open(c, false, &s.resources, raw, serverBlame)
	c.held = s.hold(early)
	c.greet()
	s.conns[c] = struct{}{}
	return c
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

// take gives a stream with an exchange to serve.
func (s *Server) take(c *serverConn) *serverStream {
	var t *serverStream
	if n := len(s.free); n > 0 {
		t = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		t = &serverStream{server: s}
		t.run = t.serve
	}
	t.x = s.worker.Begin()
	t.x.Listener, t.x.Downstream = c.port.Settings(), t
	s.streams++
	return t
}

// maxFree bounds the streams that are kept for later.
const maxFree = 256

func (s *Server) put(t *serverStream) {
	s.streams--
	if len(s.free) < maxFree {
		*t = serverStream{server: s, run: t.run}
		s.free = append(s.free, t)
	}
}
