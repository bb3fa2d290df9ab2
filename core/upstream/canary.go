package upstream

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// Canary sends part of a route's exchanges to another upstream, or to other endpoints of the same, as a health.Canary says, and reports what became of them and of the
// others. Without keys each exchange draws; with them the exchanges of one key stay on their side while the part grows.
type Canary struct {
	to    *Subset
	keys  []KeySource
	seed  uint64
	state *health.Canary // set by Start
	sides [2]trial       // canary, stable
}

// trial is told of the end of an exchange on one side.
type trial struct {
	canary *Canary
	new    bool
}

// NewCanary gives a canary that is not in use before Start. Routes with a canary of the same name give a key to the same side.
// The weight of to says nothing.
func NewCanary(to Target, keys []KeySource) *Canary {
	c := &Canary{to: to.subset(), keys: keys, seed: lb.HashString(to.name())}
	c.sides = [2]trial{{c, true}, {c, false}}
	return c
}

// Start makes c ready, before any exchange can meet it.
func (c *Canary) Start(state *health.Canary) { c.state = state }

// State is what Start was given. Percent and Report of it may be called from anywhere, the rest by its owner.
func (c *Canary) State() *health.Canary { return c.state }

// takes says whether an exchange goes to the canary, and has its end reported.
func (c *Canary) takes(x *core.Exchange, given *cookies) bool {
	percent := c.state.Percent()
	taken := percent > 0 && (percent >= 100 || c.draw(x, given) < float64(percent)/100)
	if taken {
		x.Trial = &c.sides[0]
	} else {
		x.Trial = &c.sides[1]
	}
	return taken
}

// draw gives an exchange's lot, from 0 to below 1.
func (c *Canary) draw(x *core.Exchange, given *cookies) float64 {
	if len(c.keys) > 0 {
		if key, ok := keyOf(c.keys, x, given); ok {
			return lb.Lot(key, c.seed)
		}
	}
	return rand.Float64()
}

// blame counts x as failed on its side of a canary, if it has one: another upstream is to answer in the place of that side's, and what comes
// of it says nothing of the two.
func blame(x *core.Exchange) {
	if t, ok := x.Trial.(*trial); ok {
		x.Trial = nil
		t.canary.state.Report(t.new, true, time.Duration(max(x.Worker.Loop.Now()-x.Times.Start, 0)))
	}
}

// OnEnd reports an exchange. Failed is an answer of 5xx, a gRPC call that failed on the server, and whatever the gateway could not get
// from the upstream; what it took is up to the head of the answer. One that the client or the gateway itself has ended before there
// was an answer says nothing of either side.
func (t *trial) OnEnd(x *core.Exchange) {
	at := &x.Times
	broke := x.Err != nil && x.Err.Side == core.SideUpstream
	switch {
	case at.Head > 0:
		failed := broke || x.Response.Status >= 500 || x.GRPCFailed()
		t.canary.state.Report(t.new, failed, time.Duration(max(at.Head-at.Sent, 0)))
	case broke:
		t.canary.state.Report(t.new, true, time.Duration(max(x.Worker.Loop.Now()-at.Start, 0)))
	}
}
