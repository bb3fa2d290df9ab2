package upstream

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/health"
)

// Carrier is an upstream connection that takes many exchanges at once. Only the loop that owns the connection uses it.
type Carrier interface {
	// Room is how many exchanges it takes now.
	Room() int
	// Streams is how many exchanges it takes at once, as far as the endpoint has said.
	Streams() int
	// Open takes an exchange, for which there is room. The Transport ends with its Finish.
	Open() Transport
	// Ending says that it takes no more, now and later.
	Ending() bool
	// Leave makes it take no more, and close after the last.
	Leave()
}

// Carry makes a carrier of a fresh connection, and tells owner of what happens to it.
type Carry func(w *core.Worker, c *loop.Conn, owner *Mux) Carrier

// Mux is a connection to an endpoint that many exchanges use at once. While it is being made they wait for it: of all that come
// meanwhile, one connects.
type Mux struct {
	share    *share
	endpoint *Endpoint
	raw      *loop.Conn
	carrier  Carrier     // nil: it is being made, or could not be
	failure  *core.Error // why it could not be made
	waiting  []loop.Task // for it to be made
	promised int         // exchanges that have a place in it and have not taken it yet
	riding   int         // exchanges that use it
	served   int         // exchanges that have ever used it
	gone     bool
}

// assumedRoom is how many exchanges wait for one connection that is being made, unless the endpoint has said how many it takes;
// more have another made.
const assumedRoom = 100

func (m *Mux) String() string {
	return "upstream " + m.share.upstream.Name + " " + m.endpoint.Address
}

// room is for how many more exchanges there is a place.
func (m *Mux) room(set *Settings) int {
	n := 0
	switch {
	case m.gone:
		return 0
	case m.carrier != nil:
		n = m.carrier.Room()
	case m.Assumed() > 0:
		n = min(m.Assumed(), set.Streams)
	default:
		n = min(assumedRoom, set.Streams)
	}
	if set.RequestsPerConnection > 0 {
		n = min(n, set.RequestsPerConnection-m.served)
	}
	return n - m.promised
}

// Assumed is how many exchanges at once the endpoint takes, by what it has said on its other connections; 0: nothing was heard.
func (m *Mux) Assumed() int { return m.local().streams }

// local is what m's loop has of its endpoint.
func (m *Mux) local() *endpointShare { return &m.endpoint.shares[m.share.worker.Loop.Index()] }

// board gives the exchange a place in m that was promised to it, once m is made.
func (m *Mux) board(x *core.Exchange, set *Settings) (*ride, *core.Error) {
	l := m.share.worker.Loop
	for deadline := x.DeadlineIn(int64(set.Connect + set.Handshake)); m.carrier == nil && m.failure == nil; {
		m.waiting = append(m.waiting, l.Self())
		if err := l.Park(deadline); err != nil {
			m.forget(l.Self())
			m.promised--
			return nil, dialError(x, err)
		}
	}
	m.promised--
	switch {
	case m.failure != nil:
		return nil, m.failure
	case m.gone || m.carrier.Ending() || m.riding >= m.carrier.Streams(): // it has changed its mind meanwhile
		return nil, core.ErrRefused
	}
	m.riding++
	m.served++
	r := m.share.rides.take()
	r.mux, r.transport = m, m.carrier.Open()
	return r, nil
}

func (m *Mux) forget(t loop.Task) {
	for i := range m.waiting {
		if m.waiting[i] == t {
			m.waiting = append(m.waiting[:i], m.waiting[i+1:]...)
			return
		}
	}
}

// make connects, in a task of its own: those who wait for the connection may leave before it is there.
func (m *Mux) make() {
	s, e := m.share, m.endpoint
	set := s.upstream.Settings()
	raw, err := s.worker.Loop.DialPrepared(e.address, set.Prepare, m, s.worker.Loop.Now()+int64(set.Connect))
	if err == nil {
		m.raw = raw
		if e.tls != nil {
			if err = secure(raw, e, s.worker.Loop.Now()+int64(set.Handshake)); err != nil {
				raw.Close()
			}
		}
	}
	if err != nil {
		m.failure = dialError(nil, err)
		m.Closed()
	} else {
		m.carrier = e.protocol.Carry(s.worker, raw, m)
		m.retire()
	}
	for _, t := range m.waiting {
		t.Wake()
	}
	m.waiting = nil
}

// Serve is never called: the carrier takes the connection over before it is left idle.
func (m *Mux) Serve(raw *loop.Conn) { raw.Close() }

// Changed offers the places that there may be now.
func (m *Mux) Changed() {
	s := m.share
	set := s.upstream.Settings()
	if m.carrier != nil {
		m.local().streams = max(m.carrier.Streams(), 1)
	}
	for m.carrier != nil && s.queue.len() > 0 && m.room(set) > 0 {
		w := s.first(m.endpoint)
		if w == nil {
			return
		}
		s.remove(w)
		m.promised++
		w.seat = seat{mux: m}
		w.task.Wake()
	}
}

// Closed takes the connection off the books.
func (m *Mux) Closed() {
	if m.gone {
		return
	}
	m.gone = true
	s, sh := m.share, m.local()
	for i := range sh.muxes {
		if sh.muxes[i] == m {
			sh.muxes = append(sh.muxes[:i], sh.muxes[i+1:]...)
			break
		}
	}
	if w := s.first(m.endpoint); w != nil && len(sh.muxes) == 0 { // whatever the maximum is, as in join
		s.grant(w, m.endpoint)
		return
	}
	s.release(m.endpoint)
}

// Settings are those in force.
func (m *Mux) Settings() *Settings { return m.share.upstream.Settings() }

// IdleTimeout is how long the connection stays open without an exchange.
func (m *Mux) IdleTimeout() time.Duration { return m.Settings().IdleTimeout }

// retire makes m take no more exchanges, and end after the last, if it is not wanted any more. Those to whom it was promised still
// have their place: by an older configuration they may have nowhere else to go.
func (m *Mux) retire() {
	s, set := m.share, m.share.upstream.Settings()
	switch {
	case m.carrier == nil:
	case set.RequestsPerConnection > 0 && m.served >= set.RequestsPerConnection,
		m.promised == 0 && (m.local().retired || s.worker.Draining()):
		m.carrier.Leave()
	}
}

// join finds a place for an exchange at e: in a connection that is or is being made, else in a new one if there may be another.
// A loop may have one connection to each endpoint whatever the maximum is: those of other loops are of no use to it. With fresh it
// is none that was kept, if it can be helped: where one has broken the others may be about to.
func (s *share) join(e *Endpoint, set *Settings, fresh bool) *Mux {
	sh := &e.shares[s.worker.Loop.Index()]
	for _, m := range sh.muxes {
		if m.room(set) > 0 && !(fresh && m.served > 0) {
			m.promised++
			return m
		}
	}
	switch {
	case len(sh.muxes) == 0:
		e.open.Add(1)
	case !e.take(set):
		if fresh {
			return s.join(e, set, false)
		}
		return nil
	}
	return s.newMux(e)
}

// newMux has a connection to e made, which is counted already, and promises a place in it.
func (s *share) newMux(e *Endpoint) *Mux {
	m := &Mux{share: s, endpoint: e, promised: 1}
	sh := &e.shares[s.worker.Loop.Index()]
	sh.muxes = append(sh.muxes, m)
	s.worker.Loop.Go(m.make)
	return m
}

// ride is one exchange on a Mux.
type ride struct {
	flight
	holds     holds
	mux       *Mux
	transport Transport
}

// rides are a loop's, to be used again.
type rides []*ride

func (f *rides) take() *ride {
	if n := len(*f); n > 0 {
		r := (*f)[n-1]
		*f = (*f)[:n-1]
		return r
	}
	return &ride{}
}

func (f *rides) put(r *ride) {
	*r = ride{}
	if len(*f) < maxSpare {
		*f = append(*f, r)
	}
}

func (r *ride) target() *Endpoint { return r.mux.endpoint }

func (r *ride) counted() *flight { return &r.flight }

func (r *ride) do(x *core.Exchange, header, idle int64) *core.Error {
	if x.Request.GRPC { // a stream may be long in beginning to speak
		header = idle
	}
	return r.transport.Do(x, header, idle)
}

func (r *ride) hold(b *health.Budget) { r.holds.begin(b, r.mux.share) }

func (r *ride) adopt(x *core.Exchange) { r.transport.Adopt(x) }

// discard tells the endpoint that the rest is not wanted.
func (r *ride) discard(x *core.Exchange) { r.Finish(x) }

// Finish ends the exchange.
func (r *ride) Finish(x *core.Exchange) {
	r.mux.share.worker.Loop.Watch(nil)
	x.Upstream = nil
	r.land(x, x.Err)
	r.end(x)
}

// abort ends the exchange after a failure.
func (r *ride) abort(x *core.Exchange) {
	x.Upstream = nil
	r.end(x)
}

// Abandon ends the place of an exchange that ended in a panic; those beside it go on.
func (r *ride) Abandon() { r.end(nil) }

func (r *ride) end(x *core.Exchange) {
	m := r.mux
	m.riding--
	r.drop(m.share.worker.Loop.Now())
	r.holds.end()
	r.transport.Finish(x)
	m.share.rides.put(r)
	m.retire()
}
