package core

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core/loop"
)

// Gateway is the path of requests over the configuration in force.
type Gateway struct {
	snapshot atomic.Pointer[Snapshot]
	observer Observer
}

// Observer sees every exchange last, on its loop.
type Observer interface {
	Observe(x *Exchange)
	// Failed sees an attempt that failed and is followed by another.
	Failed(x *Exchange, err *Error)
}

// NewGateway gives a gateway that serves s until Switch.
func NewGateway(s *Snapshot, o Observer) *Gateway {
	g := &Gateway{observer: o}
	g.snapshot.Store(s)
	return g
}

// Switch puts s in force for the requests that arrive from now on, and returns what was.
func (g *Gateway) Switch(s *Snapshot) *Snapshot { return g.snapshot.Swap(s) }

// Snapshot is the configuration in force.
func (g *Gateway) Snapshot() *Snapshot { return g.snapshot.Load() }

// NewWorker gives what l needs to serve this gateway's exchanges.
func (g *Gateway) NewWorker(l *loop.Loop) *Worker {
	return &Worker{Loop: l, gateway: g, ids: newIDs()}
}

// Serve takes one request, whose head is in x, through the whole path and sends the answer.
func (g *Gateway) Serve(x *Exchange) {
	x.Snapshot = g.snapshot.Load()
	if err := x.admit(); err != nil {
		x.Fail(err)
	} else if x.Listener.Before.request(x) == Continue && x.route() == Continue && x.Route.Chain.request(x) == Continue {
		x.Route.Action.Answer(x)
	}
	g.respond(x)
}

// refuse answers a request that could not be read.
func (g *Gateway) refuse(x *Exchange, err *Error) {
	x.Snapshot = g.snapshot.Load()
	x.Fail(err)
	g.respond(x)
}

// respond sends what stands in x.Response, ends the upstream's side and lets the observer see the whole.
func (g *Gateway) respond(x *Exchange) {
	if x.Route != nil {
		x.Route.Chain.response(x)
	}
	if x.Response.Status != 0 {
		if err := x.Downstream.Respond(x); err != nil && x.Err == nil {
			x.Err = err
		}
	}
	x.tell(&x.Trial)
	if x.Upstream != nil {
		if x.OpensTunnel() && x.Err == nil {
			x.Upstream.Tunnel(x)
		}
		x.Upstream.Finish(x)
	}
	x.tell(&x.Hold)
	if x.Route != nil {
		x.Route.Chain.end(x)
	}
	x.local.release()
	x.Times.End = x.Worker.Loop.Clock()
	g.observer.Observe(x)
}

// tell tells who waits for it of an end, once, whatever happens after.
func (x *Exchange) tell(who *EndPolicy) {
	if p := *who; p != nil {
		*who = nil
		p.OnEnd(x)
	}
}

// admit checks what no route decides, and makes the path that routes are matched against.
func (x *Exchange) admit() *Error {
	x.BodyLimit = x.Listener.BodyBytes
	if x.Worker.draining {
		x.Request.Close = true
	}
	if x.Request.Has(FieldExpect) && !x.Request.Expect100 {
		return ErrExpectation
	}
	if x.Client.TLS != nil && !x.Client.TLS.serves(x.Request.Host()) {
		return ErrMisdirected
	}
	return x.Request.NormalizeTarget(x.Listener.MergeSlashes)
}

// route finds the request's route and what it says of the request itself.
func (x *Exchange) route() Verdict {
	r := x.Snapshot.Router.Match(x)
	if x.Request.Method == MethodConnect && (r == nil || !r.Connect) {
		x.Fail(ErrMethod)
		return Respond
	}
	if r == nil {
		x.Fail(ErrNotFound)
		return Respond
	}
	x.Route = r
	x.progress.reset()
	if r.ClientCert != nil {
		if err := r.ClientCert.check(x); err != nil {
			x.Fail(err)
			return Respond
		}
	}
	if r.BodyLimit >= 0 {
		x.BodyLimit = r.BodyLimit
	}
	if x.BodyLimit > 0 && x.Request.ContentLength > x.BodyLimit {
		x.Fail(ErrBodyTooLarge)
		return Respond
	}
	x.identify()
	if f := x.Snapshot.Identity; f != nil {
		f.Strip(&x.Request)
	}
	return Continue
}

// identify gives the request its id: a trusted peer's, else a new one.
func (x *Exchange) identify() {
	name := x.Listener.Forward.RequestID
	if name == "" {
		return
	}
	if x.Client.Trusted {
		if id, ok := x.Request.Lookup(name); ok && isID(id) {
			x.RequestID = id
			return
		}
	}
	x.RequestID = x.Worker.NewID(&x.idText)
}

// isID says whether a peer's request id is fit to be kept: short, and of characters that mean nothing in any log.
func isID(id []byte) bool {
	for _, c := range id {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':', c == '/', c == '+', c == '=', c == '@':
		default:
			return false
		}
	}
	return len(id) > 0 && len(id) <= 128
}
