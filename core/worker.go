package core

import (
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/core/loop"
)

// Worker is what one loop needs to serve exchanges. Only its loop touches it.
type Worker struct {
	Loop    *loop.Loop
	gateway *Gateway

	free     []*Exchange
	active   int
	tunnels  int
	ids      *mathrand.ChaCha8
	date     [29]byte // the Date of dateAt
	dateAt   int64
	draining bool
	patient  bool   // while draining
	memory   []byte // of the last key's value
}

// maxFree bounds the exchanges that a worker keeps for later.
const maxFree = 256

// Begin gives an empty exchange. Every exchange ends with End.
func (w *Worker) Begin() *Exchange {
	w.active++
	return w.BeginAside()
}

// BeginAside gives an empty exchange of the gateway's own, which nobody waits for: it is not counted as under way, and so does not
// hold up a drain. It ends with EndAside.
func (w *Worker) BeginAside() *Exchange {
	if n := len(w.free); n > 0 {
		x := w.free[n-1]
		w.free = w.free[:n-1]
		return x
	}
	x := &Exchange{Worker: w}
	x.reset()
	return x
}

// End takes an exchange back. Nothing of it may be used afterwards.
func (w *Worker) End(x *Exchange) {
	w.active--
	w.EndAside(x)
}

// EndAside is End of what BeginAside gave.
func (w *Worker) EndAside(x *Exchange) {
	if len(w.free) < maxFree {
		x.reset()
		w.free = append(w.free, x)
	}
}

// Abandon ends an exchange in which a panic happened: it is not used again, nor is its upstream connection.
func (w *Worker) Abandon(x *Exchange) {
	w.active--
	x.abandon()
}

// Apologize is Abandon for an exchange of which the client has been sent nothing: it is answered with 500, and observed. Of the exchange only
// the client's side, the request and the route's name are used. What is broken so far that this panics too is the caller's to close.
func (w *Worker) Apologize(x *Exchange) {
	defer func() { w.active-- }()
	x.abandon()
	x.local.release()
	w.Refuse(x, ErrInternal)
}

// abandon ends what the exchange had begun.
func (x *Exchange) abandon() {
	x.tell(&x.Trial)
	if u := x.Upstream; u != nil {
		u.Abandon()
	}
	x.tell(&x.Hold)
	if x.Route != nil {
		x.Route.Chain.end(x)
	}
	x.Upstream = nil
}

// Active is the number of exchanges under way.
func (w *Worker) Active() int { return w.active }

// BeginTunnel counts a tunnel, or passage, until EndTunnel.
func (w *Worker) BeginTunnel() { w.tunnels++ }

// EndTunnel ends what BeginTunnel began.
func (w *Worker) EndTunnel() { w.tunnels-- }

// Tunnels is the number of tunnels and passages that are open, whatever has become of their listeners and upstreams.
func (w *Worker) Tunnels() int { return w.tunnels }

// Drain makes every connection close after its present exchange.
func (w *Worker) Drain() { w.draining = true }

// HandOver is Drain that leaves idle connections open: each learns with its next answer that it was the last.
func (w *Worker) HandOver() { w.draining, w.patient = true, true }

// Impatient says whether a connection that becomes idle is to be closed at once.
func (w *Worker) Impatient() bool { return w.draining && !w.patient }

// Draining says whether the gateway stops.
func (w *Worker) Draining() bool { return w.draining }

// Serve takes x through the gateway.
func (w *Worker) Serve(x *Exchange) { w.gateway.Serve(x) }

// Failed tells the observer of an attempt that failed and is followed by another.
func (w *Worker) Failed(x *Exchange, err *Error) { w.gateway.observer.Failed(x, err) }

// Observe shows the observer an exchange that is not a request's: it is over, and Times.End is now.
func (w *Worker) Observe(x *Exchange) {
	x.Times.End = w.Loop.Clock()
	w.gateway.observer.Observe(x)
}

// Refuse answers a request that no parser could read, for the same reason as Serve: the path is observed whole.
func (w *Worker) Refuse(x *Exchange, err *Error) { w.gateway.refuse(x, err) }

// Date is the current time as RFC 9110 (5.6.7) wants it, computed once a second.
func (w *Worker) Date() []byte {
	if t := w.Loop.Time() / int64(time.Second); t != w.dateAt {
		w.dateAt = t
		time.Unix(t, 0).UTC().AppendFormat(w.date[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	}
	return w.date[:]
}

// NewID fills dst with 128 random bits in hexadecimal, which nobody can foresee, and gives it as a slice.
func (w *Worker) NewID(dst *[32]byte) []byte {
	var b [16]byte
	_, _ = w.ids.Read(b[:]) // never fails
	hex.Encode(dst[:], b[:])
	return dst[:]
}

func newIDs() *mathrand.ChaCha8 {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	return mathrand.NewChaCha8(seed)
}
