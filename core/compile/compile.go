// Package compile turns a configuration into a Snapshot, and keeps what outlives one: the upstreams with their
// connections, and the numbers under which things are counted.
//
// Compile builds whole, on the side, and changes nothing that serves; Apply cannot fail. In between a caller may do what
// can fail, such as opening sockets.
package compile

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/discovery"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/policy/fault"
	"github.com/sluice-gateway/sluice/core/policy/forward"
	"github.com/sluice-gateway/sluice/core/policy/introspect"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
	"github.com/sluice-gateway/sluice/core/route"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/tls"
	"github.com/sluice-gateway/sluice/tls/acme"
)

// Registry is the state that outlives snapshots. One goroutine at a time uses it, never a loop.
type Registry struct {
	log        *slog.Logger
	metrics    *observe.Registry
	workers    []*core.Worker
	protocols  protocols
	system     *discovery.System // what this host says of names
	upstreams  map[string]*discovered
	encrypted  map[string]*Encryption // by listener
	issuers    map[issuerKey]*issuing
	counters   map[string]*acme.Counters // by directory
	staples    *tls.Staples
	closing    sync.WaitGroup             // issuers that are not in force any more
	seed       limits.Seed                // of the keys of all limiters
	limiters   map[string]*Limiter        // by name
	refusals   map[core.Error]*core.Error // of limiters
	consumers  *consumers
	revoker    *Revoker
	keys       map[string]*KeySource   // by place
	countries  map[string]*countryFile // by path
	followed   map[followedKey]*followed
	passwords  *gate
	canaries   *canaries
	splits     *splits
	mirrors    map[string]*upstream.Mirror // by route
	faults     map[string]*fault.Policy    // by name
	breakers   map[breakerKey]*breaking
	changes    *breakerChanges
	sharing    *sharing                // nil: this node is alone
	sharings   int                     // that were made
	services   map[string]*service     // by what is said of them
	tokens     map[string]*tokenSource // likewise
	generation int
	kept       keeper

	certificates map[*upstreamTLS]*certWatch // that services are shown

	networksFiles map[string]*networksFile // by path

	identityTokens *identityTokens // nil: none are signed

	forwardCounts    map[string][]forward.Counts // by name
	introspectCounts map[string][]introspect.Counts
	nonces           map[string]*nonces
	providers        map[*service]*provider
	sessions         map[string]*sessions // by policy, issuer and client
	loginCounts      map[string][]oidc.Counts
}

// NewRegistry gives an empty registry for the workers of all loops.
func NewRegistry(workers []*core.Worker, metrics *observe.Registry, log *slog.Logger) *Registry {
	r := &Registry{log: log, metrics: metrics, workers: workers, protocols: newProtocols(workers), upstreams: map[string]*discovered{}, system: discovery.NewSystem(),
		counters: map[string]*acme.Counters{}, staples: tls.NewStaples(),
		seed: limits.NewSeed(), limiters: map[string]*Limiter{}, refusals: map[core.Error]*core.Error{}, passwords: newGate(), revoker: &Revoker{},
		splits: &splits{}, breakers: map[breakerKey]*breaking{}, changes: newBreakerChanges(log)}
	r.canaries = newCanaries(r)
	return r
}

// Compiled is a configuration that is ready to be put in force.
type Compiled struct {
	Config    *config.Config
	Snapshot  *core.Snapshot
	Listeners []listen.Settings      // in the order of the configuration
	Upstreams []*upstream.Upstream   // likewise
	Encrypted map[string]*Encryption // by listener
	// Authorities are those that certificates are got from, Staples the OCSP responses of all listeners.
	Authorities []Authority
	Staples     *tls.Staples
	Limiters    []*Limiter
	Mirrors     map[string]*upstream.Mirror // by route
	Faults      map[string]*fault.Policy    // by name; one that is written in a route has that of the route and its place there
	// Warnings are in the order in which they were found; they refuse nothing.
	Warnings       []Warning
	first          bool // as of CompileFirst
	issuers        map[issuerKey]*issuing
	issuerOf       map[string]issuerKey // by listener
	policies       map[string]core.Step
	consumers      *consumers
	sharing        *sharing
	keys           map[string]*KeySource    // by place
	countries      map[string]*countryFile  // by path
	networks       map[string]*networksFile // likewise
	followed       map[followedKey]*followed
	stale          map[string]time.Duration // likewise: how long keys stay in force while the place is away
	secured        map[string]*upstreamTLS
	checking       map[string]*checking                   // by upstream; of those that are checked
	found          map[string]*discovered                 // all upstreams, new ones and those in force
	subsets        map[string]map[string]*upstream.Subset // by upstream and labels
	canaries       []*Canary
	splits         []*split
	judged         *canaries // the registry's
	spread         *splits   // likewise
	loops          int
	breakers       map[breakerKey]*breaking
	gates          map[string]*upstream.Gate          // by upstream
	proxies        map[upstream.Proxy]*upstream.Proxy // while routes are compiled: those that are equal are one
	services       map[string]*service
	tokens         map[string]*tokenSource
	tokenOf        map[string]*tokenSource         // by upstream
	authorizers    map[string]*upstream.Authorizer // likewise
	Forwards       []Forward
	identityTokens *identityTokens // nil: none are signed
	// Introspections are the policies that ask issuers.
	Introspections []Introspection
	// Logins are the policies that have people log in.
	Logins []Logins

	forwardCounts    map[string][]forward.Counts
	introspectCounts map[string][]introspect.Counts
	nonces           map[string]*nonces
	providers        map[*service]*provider
	sessions         map[string]boundSessions
	loginCounts      map[string][]oidc.Counts
}

// Compile builds cfg. No name is resolved and no file of endpoints is read yet.
func (r *Registry) Compile(cfg *config.Config) (*Compiled, error) { return r.compile(cfg, false) }

// CompileFirst is Compile for a process that begins. What was right when it was configured and has gone bad by itself since, such as a
// certificate that has expired, is a warning: a restart at night must not take down what a running process goes on with.
func (r *Registry) CompileFirst(cfg *config.Config) (*Compiled, error) { return r.compile(cfg, true) }

func (r *Registry) compile(cfg *config.Config, first bool) (*Compiled, error) {
	c := r.begin(cfg)
	c.first = first
	for _, step := range [...]func(*Compiled) error{
		r.identity, r.upstreamsOf, r.gatesOf, r.listeners, r.consumersOf, r.share, r.policiesOf, r.routesOf, r.hostsOf,
	} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	r.tell(c.Warnings)
	return c, nil
}

// begin gives what the steps of Compile add to.
func (r *Registry) begin(cfg *config.Config) *Compiled {
	return &Compiled{Config: cfg, Snapshot: &core.Snapshot{Generation: r.generation + 1}, Staples: r.staples,
		found: map[string]*discovered{}, subsets: map[string]map[string]*upstream.Subset{}, checking: map[string]*checking{},
		Encrypted: map[string]*Encryption{}, secured: map[string]*upstreamTLS{},
		issuers: map[issuerKey]*issuing{}, issuerOf: map[string]issuerKey{}, keys: map[string]*KeySource{}, stale: map[string]time.Duration{},
		countries: map[string]*countryFile{}, networks: map[string]*networksFile{}, followed: map[followedKey]*followed{},
		Mirrors: map[string]*upstream.Mirror{}, Faults: map[string]*fault.Policy{}, judged: r.canaries, spread: r.splits, loops: len(r.workers),
		breakers: map[breakerKey]*breaking{}, gates: map[string]*upstream.Gate{},
		services: map[string]*service{}, tokens: map[string]*tokenSource{}, tokenOf: map[string]*tokenSource{},
		authorizers: map[string]*upstream.Authorizer{}, forwardCounts: map[string][]forward.Counts{},
		introspectCounts: map[string][]introspect.Counts{}, nonces: map[string]*nonces{},
		providers: map[*service]*provider{}, sessions: map[string]boundSessions{}, loginCounts: map[string][]oidc.Counts{}}
}

// upstreamsOf finds the upstreams of c among those in force, and makes those that are new.
func (r *Registry) upstreamsOf(c *Compiled) (err error) {
	for i := range c.Config.Upstreams {
		u := &c.Config.Upstreams[i]
		d := r.upstreams[u.Name]
		var before *upstreamTLS
		if d == nil {
			d = r.discover(u)
		} else {
			before = d.tls
		}
		if c.secured[u.Name], err = c.secure(u, before); err != nil {
			return err
		}
		if c.checking[u.Name], err = r.checking(c, u, c.secured[u.Name], d.checks.tls); err != nil {
			return err
		}
		if c.authorizers[u.Name], err = r.authorizer(c, u); err != nil {
			return err
		}
		c.found[u.Name] = d
		c.Upstreams = append(c.Upstreams, d.upstream)
	}
	return nil
}

// gatesOf makes the breakers of upstreams, whose fallbacks may be any of them.
func (r *Registry) gatesOf(c *Compiled) (err error) {
	for i := range c.Config.Upstreams {
		u := &c.Config.Upstreams[i]
		if c.gates[u.Name], err = r.gate(c, breakerKey{false, u.Name}, u.Breaker); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) routesOf(c *Compiled) error {
	count := 0
	for i := range c.Config.Routes {
		count += len(c.Config.Routes[i].Matches)
	}
	rules := make([]route.Rule, 0, count)
	c.Snapshot.Routes = make([]*core.Route, 0, len(c.Config.Routes))
	c.proxies = map[upstream.Proxy]*upstream.Proxy{}
	for i := range c.Config.Routes {
		spec := &c.Config.Routes[i]
		target, err := r.route(c, spec)
		if err != nil {
			return routeError(spec, err)
		}
		c.Snapshot.Routes = append(c.Snapshot.Routes, target)
		if spec.Passthrough {
			if err := c.pass(spec, target); err != nil {
				return err
			}
			continue
		}
		for j := range spec.Matches {
			rules = append(rules, rule(spec, &spec.Matches[j], target))
		}
	}
	c.proxies = nil
	table, err := route.New(rules)
	if err != nil {
		return ruleError(c.Config, err)
	}
	c.Snapshot.Router = table
	return nil
}

// listeners builds those of c, with their certificates.
func (r *Registry) listeners(c *Compiled) error {
	if err := r.issuersOf(c); err != nil {
		return err
	}
	c.Authorities = r.authorities(c)
	for i := range c.Config.Listeners {
		spec := &c.Config.Listeners[i]
		s, err := r.listener(c, spec)
		if err != nil {
			return fmt.Errorf("%s: cannot compile listener %q: %w", spec.Pos, spec.Name, err)
		}
		switch t := spec.TLS; {
		case t == nil:
		case t.Passthrough:
			s.TLS = &listen.TLS{Timeout: t.Timeout, Handshakes: t.Handshakes, Rate: ratePerLoop(t.Rate, len(r.workers))}
		default:
			e, err := r.encrypt(c, spec, c.issuers[c.issuerOf[spec.Name]])
			if err != nil {
				return &certificateError{err}
			}
			c.Encrypted[e.Listener], s.TLS, s.Listener.Names = e, e.settings, e.settings.Names
		}
		c.Listeners = append(c.Listeners, s)
		c.Snapshot.Listeners = append(c.Snapshot.Listeners, s.Listener)
	}
	return nil
}

// routeError says which route cannot be compiled, and where it is wrong.
func routeError(r *config.Route, err error) error {
	at := r.Pos
	var placed *placedError
	if errors.As(err, &placed) {
		at = placed.at
	}
	return fmt.Errorf("%s: cannot compile route %q: %w", at, r.Name, err)
}

// ruleError says where the match stands whose rule was refused.
func ruleError(cfg *config.Config, err error) error {
	var refused *route.RuleError
	if errors.As(err, &refused) {
		n := refused.Rule
		for i := range cfg.Routes {
			r := &cfg.Routes[i]
			if r.Passthrough {
				continue
			}
			if n < len(r.Matches) {
				return fmt.Errorf("%s: cannot compile route %q: %w", r.Matches[n].Pos, r.Name, refused.Err)
			}
			n -= len(r.Matches)
		}
	}
	return fmt.Errorf("cannot compile routes: %w", err)
}

// Apply puts the upstreams of c in force, and takes the others out of it. It waits for names of endpoints that were not known before, up to
// their timeout; one that does not resolve is logged and asked for again later. The snapshot is the caller's to switch to.
func (r *Registry) Apply(c *Compiled) {
	r.generation = c.Snapshot.Generation
	r.putTokens(c)
	r.putIdentity(c)
	for i := range c.Config.Upstreams {
		u := &c.Config.Upstreams[i]
		c.found[u.Name].configure(c, u)
	}
	for name, d := range r.upstreams {
		if c.found[name] == nil {
			d.end()
			d.upstream.Retire(onLoop)
		}
	}
	r.upstreams = c.found
	if r.breakers = c.breakers; len(c.breakers) > 0 {
		r.changes.start()
	}
	r.putIssuers(c)
	r.putLimiters(c)
	r.putSharing(c)
	r.putKeys(c)
	r.putCountries(c)
	r.putNetworks(c)
	r.followed = c.followed
	r.canaries.put(c.canaries)
	r.splits.put(r, c.splits)
	r.mirrors, r.faults = c.Mirrors, c.Faults
	r.putProviders(c)
	r.putSessions(c)
	r.putServices(c)
	r.putCertificates(c)
	r.forwardCounts, r.introspectCounts, r.nonces = c.forwardCounts, c.introspectCounts, c.nonces
	for _, e := range r.encrypted {
		e.stop()
	}
	for _, e := range c.Encrypted {
		e.start(r.log)
	}
	r.encrypted = c.Encrypted
	r.putConsumers(c)
	r.kept.keep(r.metrics, c)
}

// RestUpstreams ends checks, discovery and the judging of endpoints: nothing new is sent to any of them. What is open stays so. It may be
// called again.
func (r *Registry) RestUpstreams() {
	for _, d := range r.upstreams {
		d.end()
	}
}

// Close ends what runs in the background.
func (r *Registry) Close() {
	r.canaries.stop()
	r.kept.keep(nil, nil)
	r.RestUpstreams()
	for _, e := range r.encrypted {
		e.stop()
	}
	r.changes.stop()
	r.consumers.stop()
	for _, s := range r.sessions { // before Redis can be told nothing more
		s.stop()
	}
	r.putSharing(&Compiled{})
	for _, s := range r.services {
		s.end()
	}
	for _, s := range r.keys {
		r.closing.Go(s.stop)
	}
	for _, f := range r.countries {
		r.closing.Go(f.stop)
	}
	for _, f := range r.networksFiles {
		r.closing.Go(f.stop)
	}
	for _, p := range r.providers {
		r.closing.Go(p.stop)
	}
	for _, s := range r.tokens {
		r.closing.Go(s.stop)
	}
	for _, w := range r.certificates {
		r.closing.Go(w.stop)
	}
	if t := r.identityTokens; t != nil {
		t.keys.stop()
	}
	r.closeIssuers(r.log)
}

// onLoop runs f on the worker's loop, soon.
func onLoop(w *core.Worker, f func()) { w.Loop.Post(f) }
