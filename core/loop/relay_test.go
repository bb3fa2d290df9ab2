package loop

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A request of the stress test is a head and upBytes of a pattern; its answer is the request's name and downBytes of
// another pattern. What will go wrong is part of the head, so that all three sides know what to expect.
type request struct {
	name      uint64
	upBytes   uint32
	downBytes uint32
	plan      uint32
}

const headBytes = 20

// What a request's plan may hold.
const (
	splicing       = 1 << iota // the relay moves the bytes inside the kernel
	mixed                      // the relay changes between splicing and copying
	halfClosing                // the client closes its sending side after the request
	clientResets               // the client breaks off while it sends or receives
	upstreamResets             // the upstream breaks off while it answers
	upstreamCloses             // the upstream closes after the answer, when the connection may already be pooled
	stalling                   // all sides pause now and then
	answersEarly               // the upstream answers before it has read the request
)

// faulty are the plans that may keep the client from getting its answer.
const faulty = clientResets | upstreamResets

func (r request) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.name)
	b = binary.LittleEndian.AppendUint32(b, r.upBytes)
	b = binary.LittleEndian.AppendUint32(b, r.downBytes)
	return binary.LittleEndian.AppendUint32(b, r.plan)
}

func parseRequest(b []byte) request {
	return request{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]),
		binary.LittleEndian.Uint32(b[16:])}
}

// downName is the name of the pattern of the answer.
func (r request) downName() uint64 { return ^r.name }

// relay forwards the requests of its clients over pooled connections: a gateway without its protocol.
type relay struct {
	t        testing.TB
	loop     *Loop
	upstream Address
	pool     []*Conn
	dials    int
	reuses   int
	hangups  int
	failures int
}

func (r *relay) String() string { return "relay" }

// pooled handles the connections to the upstream.
type pooled struct{ relay *relay }

func (h *pooled) String() string { return "pooled" }

// Serve is called for an idle connection that has ended, or on which somebody speaks out of turn, or of which all has been
// read without the loop knowing that it was all.
func (h *pooled) Serve(c *Conn) {
	switch n, err := c.ReadNow(make([]byte, 1)); {
	case err == ErrAgain:
		c.Idle(0)
	case n != 0 || err == nil:
		h.relay.t.Errorf("an idle upstream connection had something to read")
	}
}

func (h *pooled) Closed(c *Conn) {
	if i := slices.Index(h.relay.pool, c); i >= 0 {
		h.relay.pool = slices.Delete(h.relay.pool, i, i+1)
	}
}

// Serve takes one request after another.
func (r *relay) Serve(c *Conn) {
	var head [headBytes]byte
	for n := 0; ; {
		k, err := c.ReadNow(head[n:])
		n += k
		switch {
		case err == ErrAgain && n == 0:
			c.Idle(r.loop.Now() + int64(time.Minute))
			return
		case err == ErrAgain:
			err = c.WaitRead()
		case n == headBytes:
			if !r.forward(c, head[:]) {
				return
			}
			n = 0
		}
		if err != nil {
			return
		}
	}
}

// take gives a connection to the upstream, the one used last if there is any.
func (r *relay) take() (*Conn, error) {
	if n := len(r.pool); n > 0 {
		u := r.pool[n-1]
		r.pool = r.pool[:n-1]
		u.Use()
		r.reuses++
		return u, nil
	}
	r.dials++
	return r.loop.Dial(r.upstream, &pooled{r}, r.loop.Now()+int64(patience))
}

// forward relays a request and its answer, each way in a task of its own, and says whether both were whole.
func (r *relay) forward(c *Conn, head []byte) bool {
	q := parseRequest(head)
	u, err := r.take()
	if err != nil {
		r.t.Errorf("relay: %v", err)
		return false
	}
	c.HalfClose = q.plan&halfClosing != 0
	for _, side := range []*Conn{c, u} {
		side.ReadTimeout, side.WriteTimeout = int64(patience), int64(patience)
	}
	uploading := q.upBytes > 0
	var uploaded error
	if _, err = u.Write(head); err == nil {
		if uploading {
			self := r.loop.Self()
			r.loop.Go(func() {
				if uploaded = r.copy(u, c, int64(q.upBytes), q); uploaded != nil { // the answer will not come
					c.Close()
					u.Close()
				}
				uploading = false
				self.Wake()
			})
		} else {
			r.loop.Watch(c)
		}
		err = r.answer(c, u, q)
		r.loop.Watch(nil)
	} else {
		uploading = false
	}
	for uploading {
		if err != nil { // the upload has nowhere to go
			c.Close()
			u.Close()
			r.loop.Yield()
		} else {
			err = r.loop.Park(r.loop.Now() + int64(patience))
		}
	}
	if err = errors.Join(err, uploaded); err != nil {
		r.failed(q, err)
		u.Close()
		c.Reset()
		c.Close()
		return false
	}
	r.pool = append(r.pool, u)
	u.Idle(r.loop.Now() + int64(time.Minute))
	return true
}

// failed counts an exchange that did not come to its end, and looks for errors that no plan explains.
func (r *relay) failed(q request, err error) {
	r.failures++
	if errors.Is(err, ErrHangup) {
		r.hangups++
	}
	for _, never := range []error{ErrTimeout, ErrStopped, ErrInterrupted, ErrAgain, unix.EBADF, unix.EINVAL} {
		if errors.Is(err, never) {
			r.t.Errorf("relay: request %+v failed: %v", q, err)
		}
	}
}

func (r *relay) answer(c, u *Conn, q request) error {
	var name [8]byte
	for n := 0; n < len(name); {
		k, err := u.Read(name[n:])
		if n += k; err != nil {
			return err
		}
	}
	if got := binary.LittleEndian.Uint64(name[:]); got != q.name {
		r.t.Errorf("relay: request %d got the answer to %d", q.name, got)
	}
	if _, err := c.Write(name[:]); err != nil {
		return err
	}
	r.loop.Watch(nil) // from here on the client's end is seen in writing
	return r.copy(c, u, int64(q.downBytes), q)
}

// copy moves n bytes as the plan says.
func (r *relay) copy(dst, src *Conn, n int64, q request) error {
	for turn := q.name; n > 0; turn++ {
		var k int64
		var err error
		switch {
		case q.plan&mixed != 0 && turn%2 == 0:
			k, _, err = r.loop.Splice(dst, src, min(n, int64(turn%100_000)+1), new(int64))
		case q.plan&splicing != 0:
			k, _, err = r.loop.Splice(dst, src, n, new(int64))
		default:
			k, err = r.copyOnce(dst, src, n)
		}
		if n -= k; err != nil {
			return err
		}
		if q.plan&stalling != 0 && turn%8 == 0 {
			if err := r.loop.Park(r.loop.Now() + int64(turn%5)*int64(time.Millisecond)); err != nil && err != ErrTimeout {
				return err
			}
		}
	}
	return nil
}

func (r *relay) copyOnce(dst, src *Conn, n int64) (int64, error) {
	if err := src.WaitRead(); err != nil {
		return 0, err
	}
	buf := r.loop.Borrow()
	defer r.loop.Return(buf)
	k, err := src.ReadNow(buf[:min(n, BufferBytes)])
	switch {
	case err == ErrAgain:
		return 0, nil
	case err == io.EOF:
		return 0, io.ErrUnexpectedEOF
	case err != nil:
		return 0, err
	}
	k, err = dst.Write(buf[:k])
	return int64(k), err
}

// listen makes the relay serve what connects to the address that it gives.
func (r *relay) listen(t testing.TB) netip.AddrPort { return accepting(t, r.loop, r) }
