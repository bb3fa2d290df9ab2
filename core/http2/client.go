package http2

import (
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// Client makes the HTTP/2 connections of one loop to upstreams.
type Client struct {
	resources
	free []*ClientStream
}

// NewClient gives the client of w's loop.
func NewClient(w *core.Worker) *Client { return &Client{resources: newResources(w)} }

// Calm counts the connections to upstreams that were ended for abuse, by what (CalmReasons).
func (k *Client) Calm() [calmCount]uint64 { return k.calm }

// Owner is whose connection it is. It is told on the connection's loop, and must not wait.
type Owner interface {
	// Changed is called when the connection may take more streams than before, or takes no more.
	Changed()
	// Closed is called once, when the connection has been closed.
	Closed()
	// IdleTimeout is how long the connection stays open without a stream.
	IdleTimeout() time.Duration
	// String names the connection in logs.
	String() string
}

// ClientOptions are how a connection to an upstream is kept.
type ClientOptions struct {
	Scheme    string        // of every request: http or https
	Streams   int           // that are open at once at most; the upstream may allow less
	Assumed   int           // how many it allows, until it has said so; 0: as many as most do
	Patience  time.Duration // of a write that the upstream does not take anything of; 0: without end
	KeepAlive KeepAlive
}

// ClientConn is a connection to an upstream. It takes many exchanges at once, each on a stream.
type ClientConn struct {
	conn
	pool    *Client
	owner   Owner
	options ClientOptions
	leaving bool        // no more streams are wanted
	waiting []loop.Task // for the upstream's settings
	served  bool        // a stream has ended well: the next may find that the upstream has gone meanwhile
}

// responseLimits bound what an upstream may send as a head.
var responseLimits = Limits{HeaderBytes: 48 << 10, Headers: 500}

var clientBlame = blame{gone: core.ErrUpstreamClosed, wrong: core.ErrBadResponse, slowSender: core.ErrIdleTimeout, slowTaker: core.ErrIdleTimeout}

// maxStreamID is the highest number that a stream is given: a connection that comes to it is used up.
const maxStreamID = 1<<31 - 3

// NewConn makes a connection of raw, which serves it from then on. It can take streams at once: what the upstream's settings say
// comes later.
func (k *Client) NewConn(raw *loop.Conn, o Owner, options ClientOptions) *ClientConn {
	c := &ClientConn{pool: k, owner: o, options: options}
	c.open(c, true, &k.resources, raw, clientBlame)
	c.limits = responseLimits
	c.keepAlive = options.KeepAlive
	if options.Assumed > 0 {
		c.peer.maxStreams = min(c.peer.maxStreams, uint32(options.Assumed))
	}
	raw.WriteTimeout = int64(options.Patience)
	raw.Handle(c)
	b := append(c.append(128), core.HTTP2Preface...)
	b = AppendSettings(b, Setting{SettingEnablePush, 0}, Setting{SettingMaxHeaderListSize, uint32(responseLimits.HeaderBytes)})
	c.appended(AppendWindowUpdate(b, 0, connWindow-streamWindow))
	return c
}

func (c *ClientConn) String() string { return c.owner.String() }

// Room is how many streams the connection takes now.
func (c *ClientConn) Room() int {
	if c.leaving || c.ending || c.closed || c.peer.goAway || c.last >= maxStreamID || c.out.full() {
		return 0
	}
	return max(c.Streams()-c.running, 0)
}

// Streams is how many streams may be open at once, as far as the upstream has said.
func (c *ClientConn) Streams() int {
	return min(c.options.Streams, int(min(c.peer.maxStreams, MaxWindow)))
}

// Running is the number of streams that were taken and not yet finished.
func (c *ClientConn) Running() int { return c.running }

// Ending says that the connection takes no more streams, now and later.
func (c *ClientConn) Ending() bool {
	return c.leaving || c.ending || c.closed || c.peer.goAway || c.last >= maxStreamID
}

// Leave makes the connection take no more streams, and close after the last.
func (c *ClientConn) Leave() {
	c.leaving = true
	if !c.closed {
		c.rest()
	}
}

// Open takes a stream, of which there must be room for one. It ends with its Finish.
func (c *ClientConn) Open() *ClientStream {
	var t *ClientStream
	if n := len(c.pool.free); n > 0 {
		t = c.pool.free[n-1]
		c.pool.free = c.pool.free[:n-1]
	} else {
		t = &ClientStream{}
		t.asked = t
		t.upload.init(t)
	}
	t.conn, t.owner = &c.conn, c
	c.running++
	return t
}

// put takes a stream back that nobody uses any more.
func (k *Client) put(t *ClientStream) {
	if len(k.free) >= maxFree {
		return
	}
	head := t.head
	head.Reset()
	run := t.upload.run
	*t = ClientStream{}
	t.head = head
	t.asked = t
	t.upload.stream, t.upload.run = t, run
	k.free = append(k.free, t)
}

// onBlock takes the head of an answer, or the trailer section of one.
func (c *ClientConn) onBlock(t *stream, b headerBlock) {
	switch {
	case t == nil:
		c.fail(CodeProtocol, "HEADERS on a stream that was not opened")
	case t.asked.answered:
		c.trailer(t, b)
	default:
		t.asked.onHead(b)
	}
}

// onReset ends a stream that the upstream does not serve to its end.
func (c *ClientConn) onReset(t *stream, code ErrorCode) {
	delete(c.streams, t.id)
	err := errReset
	if code == CodeRefusedStream {
		err = core.ErrRefused
	}
	t.abandon(err)
}

// rest leaves the connection to the loop, for as long as it may be silent.
func (c *ClientConn) rest() {
	if c.closed || c.serving {
		return
	}
	if c.peer.goAway {
		c.refused()
	}
	now, deadline := c.res.loop.Now(), int64(0)
	switch {
	case c.dying:
		deadline = c.due
	case c.running > 0 || c.out.waits():
	case c.Ending():
		c.appended(AppendGoAway(c.append(FrameHeaderBytes+8), 0, CodeNo, ""))
		c.die()
		deadline = c.due
	default:
		deadline = now + int64(c.owner.IdleTimeout())
	}
	c.raw.Busy = c.running > 0 || c.out.waits()
	c.raw.Use()
	c.raw.Idle(deadline)
	if c.settled || c.dying {
		c.wakeWaiting()
	}
	c.owner.Changed()
}

// refused ends the streams that the upstream will not look at (RFC 9113, 6.8).
func (c *ClientConn) refused() {
	for id, t := range c.streams {
		if id > c.peer.lastStream {
			delete(c.streams, id)
			t.abandon(core.ErrRefused)
		}
	}
}

// Closed ends what the connection's streams were working for.
func (c *ClientConn) Closed(*loop.Conn) {
	c.end()
	c.wakeWaiting()
	c.owner.Closed()
}

// settle waits for the upstream's settings, until an instant on the loop's clock.
func (c *ClientConn) settle(deadline int64) *core.Error {
	for !c.settled && !c.closed && !c.dying {
		l := c.res.loop
		c.waiting = append(c.waiting, l.Self())
		if err := l.Park(deadline); err != nil {
			self := l.Self()
			c.waiting = slices.DeleteFunc(c.waiting, func(t loop.Task) bool { return t == self })
			if err == loop.ErrTimeout {
				return core.ErrHeaderTimeout
			}
			return core.ErrClientGone
		}
	}
	return nil
}

func (c *ClientConn) wakeWaiting() {
	for _, t := range c.waiting {
		t.Wake()
	}
	c.waiting = nil
}

var (
	errReset  = &core.Error{Status: 502, Reason: "upstream_reset", Side: core.SideUpstream, Retry: core.RetryReset}
	errClosed = &core.Error{Status: 502, Reason: "upstream_closed", Side: core.SideUpstream, Retry: core.RetryReset}
)
