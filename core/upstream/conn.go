package upstream

import (
	"errors"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// conn is one connection to an endpoint: in use by one exchange, or idle and watched by the loop.
type conn struct {
	share     *share
	endpoint  *Endpoint
	raw       *loop.Conn
	transport Transport
	served    int
	inUse     bool
	gone      bool
}

func (c *conn) String() string {
	return "upstream " + c.share.upstream.Name + " " + c.endpoint.Address
}

// Serve is called when an idle connection has something to say: its end, or bytes that nobody asked for. Neither is for
// anyone, so it is closed.
func (c *conn) Serve(raw *loop.Conn) { raw.Close() }

// Closed takes the connection off the books.
func (c *conn) Closed(*loop.Conn) {
	sh := c.shareOf()
	c.gone = true
	if c.inUse {
		sh.active--
	} else {
		for i := len(sh.idle) - 1; i >= 0; i-- {
			if sh.idle[i] == c {
				sh.idle = append(sh.idle[:i], sh.idle[i+1:]...)
				break
			}
		}
	}
	c.endpoint.open.Add(-1)
	c.share.wake()
}

func (c *conn) shareOf() *endpointShare { return &c.endpoint.shares[c.share.worker.Loop.Index()] }

// reuse gives an idle connection to e, nil when there is none.
func (s *share) reuse(e *Endpoint) *conn {
	sh := &e.shares[s.worker.Loop.Index()]
	n := len(sh.idle)
	if n == 0 {
		return nil
	}
	c := sh.idle[n-1]
	sh.idle = sh.idle[:n-1]
	c.raw.Use()
	c.inUse = true
	sh.active++
	return c
}

// errFull says that an endpoint has all the connections it may have.
var errFull = errors.New("all connections are in use")

// dial makes a connection to e.
func (s *share) dial(x *core.Exchange, e *Endpoint, set *Settings) (*conn, error) {
	if n := e.open.Add(1); set.MaxConnections > 0 && int(n) > set.MaxConnections {
		e.open.Add(-1)
		return nil, errFull
	}
	c := &conn{share: s, endpoint: e, inUse: true}
	e.shares[s.worker.Loop.Index()].active++
	raw, err := s.worker.Loop.Dial(e.address, c, x.DeadlineIn(int64(set.Connect)))
	if err != nil {
		if !c.gone { // it did not come to a connection that could tell
			c.Closed(nil)
		}
		return nil, err
	}
	c.raw = raw
	c.transport = s.upstream.speak(s.worker, raw)
	return c, nil
}

// Finish ends the exchange: a clean connection is kept for the next, any other is closed.
func (c *conn) Finish(x *core.Exchange) {
	c.share.worker.Loop.Watch(nil)
	x.Upstream = nil
	set := c.share.upstream.Settings()
	c.served++
	keep := c.transport.Finish(x) && (set.RequestsPerConnection == 0 || c.served < set.RequestsPerConnection)
	sh := c.shareOf()
	switch {
	case !keep, sh.retired, c.share.worker.Draining(), len(sh.idle) >= set.IdlePerLoop, c.neededElsewhere():
		c.raw.Close()
		return
	}
	c.inUse = false
	sh.active--
	sh.idle = append(sh.idle, c)
	c.raw.Idle(c.share.worker.Loop.Now() + int64(set.IdleTimeout))
	c.share.wake()
}

// neededElsewhere says that requests wait on other loops only, which cannot use this loop's connections.
func (c *conn) neededElsewhere() bool {
	return int(c.share.upstream.pending.Load()) > c.share.queue.len()
}

// Abandon closes the connection of an exchange that ended in a panic.
func (c *conn) Abandon() { c.raw.Close() }

// abort closes a connection whose exchange failed.
func (c *conn) abort(x *core.Exchange) {
	x.Upstream = nil
	c.transport.Finish(x)
	c.raw.Close()
}
