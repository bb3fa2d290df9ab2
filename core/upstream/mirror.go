package upstream

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// MirrorSpec says what a mirror gets, and what it may cost.
type MirrorSpec struct {
	Share     float64       // of the exchanges, above 0 and up to 1
	BodyBytes int           // requests with a longer body are not mirrored
	Timeout   time.Duration // of a reflection as a whole, above zero
	AtOnce    int           // reflections under way, on all loops together; those that still gather their body are counted
	Host      MirrorHost
	Mark      bool // reflections say what they are, in MirrorField
}

// MirrorHost is what stands in the Host of reflections.
type MirrorHost uint8

const (
	MirrorHostPreserve MirrorHost = iota // what the other upstream is asked for
	MirrorHostUpstream                   // the endpoint's name
	MirrorHostShadow                     // the former with "-shadow" behind the name, as Envoy writes it; an IPv6 address stays
)

// MirrorField marks a reflection: its value is 1.
const MirrorField = "X-Sluice-Mirror"

// maxMirrorAnswer bounds what is read of an answer. The connection of one that is longer is closed.
const maxMirrorAnswer = 1 << 20

// Mirror sends copies of requests to another upstream, whose answers nobody gets: the client neither waits for them nor learns how they
// went. A request with a body is mirrored when its body has been taken by the upstream that answers it, and was not too long.
type Mirror struct {
	spec   MirrorSpec
	to     *Upstream
	shared *mirrorShared
}

// mirrorShared is what outlives a Mirror: another in its place goes on with it.
type mirrorShared struct {
	flying atomic.Int32
	lanes  []mirrorLane // by loop
}

// mirrorLane is one loop's. Nobody else touches it.
type mirrorLane struct {
	counts MirrorCounts
	free   []*reflection
	_      [64]byte // keeps the lanes of two loops off one cache line
}

// MirrorCounts are of one loop. Sent is all of Answered, Failed and what is under way.
type MirrorCounts struct {
	Sent     uint64
	Answered uint64 // with whatever status
	Failed   uint64 // by the upstream, or by the timeout
	Dropped  uint64 // since too many were under way
	TooLong  uint64 // bodies
	Took     int64  // nanoseconds up to the ends of answers, of those Answered
}

// NewMirror gives a mirror that goes on with the counts of before, which may be nil.
func NewMirror(to *Upstream, spec MirrorSpec, before *Mirror, loops int) *Mirror {
	m := &Mirror{spec: spec, to: to}
	if before != nil {
		m.shared = before.shared
	} else {
		m.shared = &mirrorShared{lanes: make([]mirrorLane, loops)}
	}
	return m
}

// To is the upstream that gets reflections.
func (m *Mirror) To() *Upstream { return m.to }

// Counts are those of a loop, on which it is called.
func (m *Mirror) Counts(index int) MirrorCounts { return m.shared.lanes[index].counts }

// Flying is the number of reflections under way. It may be asked from anywhere.
func (m *Mirror) Flying() int { return int(m.shared.flying.Load()) }

// see has x mirrored, if it is one of those that are. x is ready to be sent upstream.
func (m *Mirror) see(x *core.Exchange) {
	r, lane := &x.Request, &m.shared.lanes[x.Worker.Loop.Index()]
	switch {
	case r.AsksTunnel(): // what follows is a tunnel
		return
	case m.spec.Share < 1 && rand.Float64() >= m.spec.Share:
		return
	case r.Body != nil && r.ContentLength > int64(m.spec.BodyBytes):
		lane.counts.TooLong++
		return
	case m.shared.flying.Add(1) > int32(m.spec.AtOnce):
		m.shared.flying.Add(-1)
		lane.counts.Dropped++
		return
	}
	c := lane.take(x.Worker)
	c.begin(m, x)
	if r.Body == nil {
		c.fly()
		return
	}
	t := &tee{Body: r.Body, x: x, to: c, next: x.Trial}
	r.Body, x.Trial = t, t
}

// take gives a reflection that is not in use.
func (a *mirrorLane) take(w *core.Worker) *reflection {
	var c *reflection
	if n := len(a.free) - 1; n >= 0 {
		c, a.free = a.free[n], a.free[:n]
	} else {
		c = &reflection{lane: a}
		c.task = c.run
	}
	c.x = w.BeginAside()
	return c
}

// put takes a reflection back that is over, with its exchange.
func (a *mirrorLane) put(c *reflection) {
	c.mirror.shared.flying.Add(-1)
	c.body.Release()
	c.x.Worker.EndAside(c.x)
	if cap(c.body.data) > maxMirrorKept {
		c.body.data = nil
	}
	c.x, c.mirror, c.body = nil, nil, memoryBody{data: c.body.data[:0]}
	if len(a.free) < maxSpare {
		a.free = append(a.free, c)
	}
}

// maxMirrorKept bounds the memory that an unused reflection keeps for a body.
const maxMirrorKept = 64 << 10

// reflection is the copy of a request, with an exchange and a task of its own.
type reflection struct {
	mirror *Mirror
	lane   *mirrorLane
	x      *core.Exchange
	body   memoryBody
	task   func() // run, bound once
}

// begin copies what there is of a request beside its body.
func (c *reflection) begin(m *Mirror, from *core.Exchange) {
	c.mirror = m
	x := c.x
	x.Request.CopyRequest(&from.Request)
	x.Request.Remove(core.FieldExpect) // the body is at hand
	x.Listener, x.Snapshot, x.Route, x.Consumer, x.Claims = from.Listener, from.Snapshot, from.Route, from.Consumer, from.Claims
	x.Client = core.Client{Peer: from.Client.Peer, Via: from.Client.Via, Trusted: from.Client.Trusted, TLS: from.Client.TLS,
		Conn: from.Client.Conn}
	if from.Client.Addr.IsValid() {
		x.SetClient(from.Client.Addr)
	}
	x.Downstream = nobody{}
	if m.spec.Mark {
		x.Request.RemoveName(MirrorField)
		x.Request.AddName(MirrorField, []byte("1"))
	}
}

// fly sends the reflection in a task of its own.
func (c *reflection) fly() {
	c.lane.counts.Sent++
	c.x.Worker.Loop.Go(c.task)
}

// run is the reflection's task.
func (c *reflection) run() {
	x, m := c.x, c.mirror
	l := x.Worker.Loop
	whole := false
	defer func() {
		if !whole { // a panic: nothing of the exchange is used again
			m.shared.flying.Add(-1)
			if x.Upstream != nil {
				x.Upstream.Abandon()
			}
			c.lane.counts.Failed++
			return
		}
		c.lane.put(c)
	}()
	x.Times.Start = l.Now()
	x.Deadline = x.Times.Start + int64(m.spec.Timeout)
	if err := c.attempt(); err != nil {
		c.lane.counts.Failed++
	} else {
		c.lane.counts.Answered++
		c.lane.counts.Took += l.Now() - x.Times.Start
	}
	whole = true
}

// attempt sends the request once and reads the answer.
func (c *reflection) attempt() *core.Error {
	x, s := c.x, c.mirror.to.shares[c.x.Worker.Loop.Index()]
	set := s.upstream.Settings()
	x.Sent.Pool = &s.upstream.Pool
	if set.Balancing != nil {
		var given cookies // which nobody gets
		set.Balancing.affinity(x, &given)
	}
	if set.Authorizer != nil {
		if _, err := set.Authorizer.authorize(x); err != nil {
			return err
		}
	}
	if set.Identity != nil {
		if err := set.Identity.tell(x); err != nil {
			return err
		}
	}
	way, err := s.connect(x, &plan{set: set, perTry: set.PerTry}, false)
	if err != nil {
		return err
	}
	x.Upstream = way
	c.setHost(way.target())
	if err := way.do(x, int64(set.Header), int64(set.Idle)); err != nil {
		way.counted().land(x, err)
		way.abort(x)
		return err
	}
	x.Try = core.Try{}
	x.Err = drop(x.Response.Body)
	err = x.Err
	way.Finish(x)
	return err
}

// setHost says whom the reflection is for.
func (c *reflection) setHost(e *Endpoint) {
	m := &c.x.Request
	switch {
	case c.mirror.spec.Host == MirrorHostUpstream || !m.Has(core.FieldHost):
		m.Set(core.FieldHost, e.host)
	case c.mirror.spec.Host == MirrorHostShadow:
		host := m.Get(core.FieldHost)
		if len(host) == 0 || host[0] == '[' { // no name that something could stand behind
			return
		}
		name := core.HostOf(host)
		line := m.Begin(core.FieldHost.String())
		line.Bytes(name)
		line.String("-shadow")
		line.Bytes(host[len(name):])
		m.Remove(core.FieldHost)
		line.End(core.FieldHost)
	}
}

// drop reads an answer's body, up to a bound.
func drop(b core.Body) *core.Error {
	for n := 0; b != nil && n < maxMirrorAnswer; {
		p, err := b.Next()
		if err != nil {
			return core.BodyError(err)
		}
		n += p.End - p.Start
		if p.Last {
			return nil
		}
		b.Release()
	}
	return nil
}

// nobody is the client of a reflection.
type nobody struct{}

func (nobody) Interim(*core.Exchange) *core.Error { return nil }

func (nobody) Respond(*core.Exchange) *core.Error { return nil }

func (nobody) Conn() *loop.Conn { return nil }

func (nobody) Buffered() []byte { return nil }
