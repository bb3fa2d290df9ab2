// Package upstream is the way from a route to an endpoint and back: pools of connections, one attempt, its retries, and
// the tunnel that an upgraded connection becomes.
//
// An Upstream outlives the configurations that name it: its endpoints and their idle connections stay as long as their
// addresses do. Each loop has its own connections; loops share of an endpoint only a count of what is open.
package upstream

import (
	cryptotls "crypto/tls"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// Settings are what the configuration says of an upstream besides its endpoints.
type Settings struct {
	Connect, Header, Idle time.Duration // timeouts; each above zero
	Handshake             time.Duration // of TLS, after the connection; above zero
	PerTry                time.Duration // of one attempt, up to the head of its answer; 0: none
	Total                 time.Duration // 0: none
	Tunnel                time.Duration // without a byte either way; above zero
	TunnelLife            time.Duration // of a tunnel; 0: as long as it likes
	MaxConnections        int           // to one endpoint, all loops together; 0: no limit
	MaxRetries            int           // attempts under way that follow on others, all loops together; 0: no limit
	MaxPending            int           // requests that wait for a connection, all loops together
	QueueTimeout          time.Duration
	IdlePerLoop           int
	IdleTimeout           time.Duration
	RequestsPerConnection int // 0: no limit
	ReplayBytes           int
	Protocol              *Protocol
	Streams               int               // exchanges that share one connection at most, if the protocol lets them; above zero
	KeepAlive             time.Duration     // of silence on a shared connection before the endpoint is asked for a sign of life; 0: never
	KeepAliveTimeout      time.Duration     // for that sign
	TLS                   *cryptotls.Config // nil: not encrypted. Without a ServerName each endpoint's own is asked for
	Proxy                 ProxyVersion      // of the header that connections begin with, before TLS
	Balancing             *Balancing        // nil: round robin
	Gate                  *Gate             // nil: exchanges pass
	Admission             *Admission        // nil: any number of them
	Retry                 *RetryPolicy      // nil: the built-in one
	Hedge                 *HedgePolicy      // nil: none
	Budget                *health.Budget    // of retries; nil: they are not bounded so
	Authorizer            *Authorizer       // nil: requests keep the client's Authorization
	Identity              *IdentityToken    // nil: no token tells of the consumer
	Prepare               *loop.Preparation // of TCP sockets; nil: they are the kernel's
}

// Transport is an upstream connection's protocol. Only the loop that owns the connection uses it.
type Transport interface {
	// Do sends x.Request and waits for the head of the answer, which it leaves in x.Response with the body to come. header
	// bounds the wait for the head, idle each wait for more of a body; both in nanoseconds.
	Do(x *core.Exchange, header, idle int64) *core.Error
	// Adopt makes the answer, whose head has come to another exchange with the same request, that of x.
	Adopt(x *core.Exchange)
	// Finish ends the exchange and says whether the connection can serve another.
	Finish(x *core.Exchange) bool
	// Buffered is what has come after a head that opens a tunnel.
	Buffered() []byte
}

// Protocol is how endpoints are spoken to: exchanges have a connection each, or share one.
type Protocol struct {
	Speak Speak // nil: they share
	Carry Carry
	ALPN  string // that an encrypted connection must have come to; "": whatever
}

func (p *Protocol) shared() bool { return p.Carry != nil }

// Speak makes a transport of a fresh connection, which serves one exchange after another.
type Speak func(w *core.Worker, c *loop.Conn) Transport

// Upstream is a named group of endpoints.
type Upstream struct {
	core.Pool
	settings  atomic.Pointer[Settings]
	endpoints atomic.Pointer[[]*Endpoint] // as last resolved; for those who look from outside
	shares    []*share                    // of the whole, by loop
	active    atomic.Int64                // exchanges, of those that an Admission bounds
	pending   atomic.Int32                // requests that wait for a connection, on all loops
	retries   atomic.Int32                // attempts under way that follow on others, on all loops
	whole     *Subset                     // all endpoints
	subsets   []*Subset                   // others that are kept up to date; whoever calls Assign
}

// share is what one loop has of a subset of an upstream.
type share struct {
	*onLoop
	picker lb.Picker
	usable []*lb.Endpoint     // that the picker may give; shared with other loops
	has    map[*Endpoint]bool // likewise
	walked int                // where in usable the next walk begins
	look   lb.Attempt         // scratch of find
}

// onLoop is what one loop has of an upstream, whichever subsets there are.
type onLoop struct {
	upstream *Upstream
	worker   *core.Worker
	queue    queue
	counts   RetryCounts
	hedges   hedges
	waits    waits // for heads of answers, where hedges go by them
	rides    rides
	tunnels  int // open ones, and passages
}

// Endpoint is one address of an upstream. Of its lb.Endpoint the weight, priority, zone and labels may change while its
// connections stay: they stand in Described alone.
type Endpoint struct {
	lb.Endpoint
	described atomic.Pointer[lb.Endpoint]
	watch     atomic.Pointer[Watch] // nil: nobody looks for outliers
	address   loop.Address
	protocol  *Protocol
	host      []byte // its name as a Host field
	tls       *cryptotls.Config
	proxy     ProxyVersion
	name      string          // the same without the port: what its certificate must be for
	open      atomic.Int32    // connections, on all loops
	shares    []endpointShare // by loop
}

// endpointShare is what one loop has of an endpoint.
type endpointShare struct {
	idle    []*conn // the one used last at the end
	muxes   []*Mux  // that exchanges share, the oldest first
	streams int     // exchanges that a connection takes at once, as the endpoint said last; 0: it has not
	active  int
	retired bool // the endpoint is no longer in the configuration, or its name resolves to others
}

// New makes an upstream for the workers of all loops, without endpoints. Metric is its metric id.
func New(name string, metric int, s *Settings, workers []*core.Worker) *Upstream {
	u := &Upstream{Pool: core.Pool{Name: name, Metric: metric}}
	u.settings.Store(s)
	u.endpoints.Store(&[]*Endpoint{})
	for _, w := range workers {
		u.shares = append(u.shares, newShare(&onLoop{upstream: u, worker: w}))
	}
	u.whole = &Subset{upstream: u, shares: u.shares}
	return u
}

func newShare(l *onLoop) *share { return &share{onLoop: l, picker: lb.NewRoundRobin(nil, 0)} }

// Configure puts s in force for the attempts that begin from now on.
func (u *Upstream) Configure(s *Settings) { u.settings.Store(s) }

// Settings are those in force.
func (u *Upstream) Settings() *Settings { return u.settings.Load() }

// Endpoints are the addresses in use.
func (u *Upstream) Endpoints() []*Endpoint { return *u.endpoints.Load() }

// Pending is the number of requests that wait for a connection.
func (u *Upstream) Pending() int { return int(u.pending.Load()) }

// Retrying is the number of attempts under way, or about to begin, that follow on others.
func (u *Upstream) Retrying() int { return int(u.retries.Load()) }

// Open is the number of connections to e, on all loops.
func (e *Endpoint) Open() int { return int(e.open.Load()) }

// Host is the endpoint's name as a Host field; name is what its certificate must be for, where the upstream's TLS does not say.
func (e *Endpoint) Host() (host, name string) { return string(e.host), e.name }

// Described is the endpoint as the configuration has it now. It may be called from anywhere.
func (e *Endpoint) Described() *lb.Endpoint { return e.described.Load() }

// Member is one address to use.
type Member struct {
	Name     string // as configured
	Address  loop.Address
	Weight   int // 0..1000; 0: it gets nothing
	Metric   int
	Priority int // 0 is used first
	Zone     string
	Flags    lb.Flag           // that an address begins with which was not there before
	Labels   map[string]string // what subsets go by; never changed
	Learned  bool              // weight and the like are not of the configuration: their change is no reason to forget those of run time
}

// Equal says whether nothing differs.
func (m *Member) Equal(o *Member) bool {
	return m.Name == o.Name && m.Address == o.Address && m.Weight == o.Weight && m.Metric == o.Metric && m.Priority == o.Priority &&
		m.Zone == o.Zone && m.Learned == o.Learned && m.Flags == o.Flags && maps.Equal(m.Labels, o.Labels)
}

// Idle is the number of connections to e that no exchange uses, on the loop of that index; called on that loop.
func (e *Endpoint) Idle(index int) int {
	n := len(e.shares[index].idle)
	for _, m := range e.shares[index].muxes {
		if m.carrier != nil && m.riding == 0 {
			n++
		}
	}
	return n
}

// Tunnels is the number of tunnels and passages to u that are open on the loop of that index; called on that loop.
func (u *Upstream) Tunnels(index int) int { return u.shares[index].tunnels }

// Assign makes members the endpoints of u. Those whose address stays, and how they are spoken to, keep their
// connections; those that go finish what is under way. An address that stays keeps its Load; what was changed of it at run time
// holds until the configuration changes the member. It may be called from any goroutine but a loop's, by one at a time; apply
// runs a function on the loop of each worker, or at once while the loops do not run yet.
func (u *Upstream) Assign(members []Member, apply func(w *core.Worker, f func())) {
	old := map[loop.Address]*Endpoint{}
	for _, e := range u.Endpoints() {
		old[e.address] = e
	}
	var next []*Endpoint
	used, loads := map[*Endpoint]bool{}, map[*lb.Load]bool{}
	for i := range members {
		m := &members[i]
		e := old[m.Address]
		switch {
		case e == nil || loads[e.Load]:
			e = u.newEndpoint(m, lb.NewLoad(u.clock()))
			e.Load.Raise(m.Flags)
		case e.Name != m.Name || !e.speaksAs(u.Settings()):
			before, watch := e.Described(), e.watch.Load()
			e = u.newEndpoint(m, e.Load)
			e.Watch(watch)
			e.forget(before, m, u.clock())
		default:
			before := e.describe(m)
			e.forget(before, m, u.clock())
		}
		used[e], loads[e.Load] = true, true
		next = append(next, e)
	}
	u.endpoints.Store(&next)
	u.rebalance(apply, next, func(index int) {
		for _, e := range old {
			if !used[e] {
				e.retire(index)
			}
		}
	})
}

// describe puts what may change of e in force, and gives what was.
func (e *Endpoint) describe(m *Member) *lb.Endpoint {
	d := e.Endpoint
	d.Weight, d.Priority, d.Zone, d.Labels = m.Weight, m.Priority, m.Zone, m.Labels
	return e.described.Swap(&d)
}

// forget takes back what was changed of e at run time, if the configuration has changed it from before.
func (e *Endpoint) forget(before *lb.Endpoint, m *Member, now int64) {
	d := e.Described()
	if same := d.Weight == before.Weight && d.Priority == before.Priority && d.Zone == before.Zone && maps.Equal(d.Labels, before.Labels); !same && !m.Learned {
		e.Load.SetWeight(-1)
		e.Load.Clear(lb.Draining|lb.Disabled, now)
	}
}

// Retire makes u keep no idle connections. What still comes, by a configuration that is no longer in force, is served. apply is
// as for Assign.
func (u *Upstream) Retire(apply func(w *core.Worker, f func())) {
	for i, s := range u.shares {
		apply(s.worker, func() {
			for _, e := range u.Endpoints() {
				e.retire(i)
			}
		})
	}
}

func (u *Upstream) newEndpoint(m *Member, load *lb.Load) *Endpoint {
	set := u.Settings()
	e := &Endpoint{address: m.Address, protocol: set.Protocol, tls: set.TLS, proxy: set.Proxy, shares: make([]endpointShare, len(u.shares))}
	e.host = []byte(m.Name)
	if m.Address.Path != "" {
		e.host = []byte("localhost")
	}
	e.name = string(core.HostOf(e.host))
	e.Endpoint = lb.Endpoint{Address: m.Address.String(), Name: m.Name, Metric: m.Metric, State: e, Load: load}
	e.describe(m)
	return e
}

// speaksAs says whether connections to e are made as s says.
func (e *Endpoint) speaksAs(s *Settings) bool {
	return e.protocol == s.Protocol && e.tls == s.TLS && e.proxy == s.Proxy
}

// retire closes the idle connections of an endpoint on one loop; those in use are closed after their exchange.
func (e *Endpoint) retire(index int) {
	sh := &e.shares[index]
	sh.retired = true
	for len(sh.idle) > 0 {
		sh.idle[len(sh.idle)-1].raw.Close()
	}
	for _, m := range slices.Clone(sh.muxes) {
		m.retire()
	}
}
