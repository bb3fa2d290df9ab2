package compile

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/discovery"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/probe"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// maxMembers bounds the addresses of one upstream: more a set does not take.
const maxMembers = 1<<16 - 1

// discovered is an upstream whose endpoints, and their shares, are kept up to date: names are resolved again and again, files are read
// when they change, and slow start has its steps. While a name does not resolve, or a file is wrong, what was known last stays.
type discovered struct {
	registry *Registry
	upstream *upstream.Upstream
	moved    chan struct{} // the upstream's Due is another: the background looks at it

	mu        sync.Mutex // configure, change and the background
	spec      *config.Upstream
	all       *config.Upstream // spec with the endpoints of its files
	tls       *upstreamTLS     // in force; nil: not encrypted
	resolver  *discovery.Resolver
	names     map[string]*watchedName // of endpoints of all, by what nameOf gives
	files     []*watchedFile
	subsets   map[string]*upstream.Subset // of the configuration in force
	roster    roster                      // endpoints of run time
	inherited *ExportedOverrides          // of the process before, until the first endpoints are known; nil: nothing
	known     bool                        // there have been endpoints
	checks    checks
	quit      context.CancelFunc // ends the background; nil: there is none
	done      sync.WaitGroup

	outliers outliers
	adaptive adaptive
	budget   budget
}

// discover makes a new upstream.
func (r *Registry) discover(u *config.Upstream) *discovered {
	d := &discovered{registry: r, names: map[string]*watchedName{}, moved: make(chan struct{}, 1)}
	d.checks.checker = probe.NewChecker(d.checked)
	d.outliers.init()
	d.upstream = upstream.New(u.Name, r.metrics.Pool(u.Name), r.settings(u, nil), r.workers)
	return d
}

// configure puts u of c in force: settings, endpoints, how they are checked, and how they are found. It waits for names of which nothing is
// known yet.
func (d *discovered) configure(c *Compiled, u *config.Upstream) {
	d.stop()
	ctx, quit := context.WithCancel(context.Background())
	d.resolver = discovery.New(resolverSettings(c.Config, u), d.registry.system)
	files := d.open(u)
	all := combine(u, files)
	names := d.find(ctx, namesOf(all), u, d.names, true)
	t := c.secured[u.Name]

	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.all != nil:
		d.roster = d.roster.after(d.all, all)
	case d.inherited != nil:
		d.roster = d.inherited.roster(all)
	}
	d.spec, d.all, d.tls, d.files, d.names = u, all, t, files, names
	settings := d.registry.settings(u, t)
	settings.Authorizer, settings.Identity = c.authorizers[u.Name], c.identityOf(u.Name)
	settings.Gate, settings.Admission, settings.Budget = c.gates[u.Name], d.admission(u), d.budgetOf(u)
	d.upstream.Configure(settings)
	d.selectSubsets(c.subsets[u.Name])
	d.setChecks(ctx, c.checking[u.Name])
	d.detect(u.Outlier)
	d.assign()
	d.quit = quit
	if u.Outlier != nil {
		d.done.Go(func() { d.judge(ctx, u.Outlier.Interval) })
	}
	d.done.Go(func() { d.run(ctx) })
	for _, w := range names {
		d.follow(ctx, w)
	}
	if len(files) > 0 {
		d.done.Go(func() { d.watchFiles(ctx, files) })
	}
	if t != nil && t.store != nil {
		d.done.Go(func() { t.store.Watch(ctx, watchEvery, d.renewed) })
	}
}

// selectSubsets puts the subsets of a configuration in force. Those of the one before are kept up to date for the exchanges that still
// go by it. The caller holds d.mu.
func (d *discovered) selectSubsets(now map[string]*upstream.Subset) {
	var list []*upstream.Subset
	for _, s := range now {
		list = append(list, s)
	}
	for key, s := range d.subsets {
		if now[key] != s {
			list = append(list, s)
		}
	}
	d.upstream.Select(list)
	d.subsets = now
}

// renewed tells of the certificate that is shown to the upstream.
func (d *discovered) renewed(changed []string, problems []error) {
	reportRenewal(d.registry.log.With("upstream", d.upstream.Name), changed, problems)
}

func (d *discovered) stop() {
	d.mu.Lock()
	quit := d.quit
	d.quit = nil
	d.mu.Unlock()
	if quit != nil {
		quit()
		d.done.Wait()
	}
}

// run is the background of one configuration, besides that of names and files.
func (d *discovered) run(ctx context.Context) {
	step := time.NewTimer(time.Hour)
	defer step.Stop()
	for {
		if due := d.upstream.Due(); due > 0 {
			step.Reset(time.Duration(due))
		}
		select {
		case <-ctx.Done():
			return
		case <-step.C:
			d.change(ctx, func() {})
		case <-d.moved:
		}
	}
}

// change runs f, which changes loads of endpoints, and puts the shares in force that follow from it, unless ctx has ended.
func (d *discovered) change(ctx context.Context, f func()) {
	d.changeIf(ctx, func() bool {
		f()
		return true
	})
}

// changeIf is change by an f that says whether it has changed anything.
func (d *discovered) changeIf(ctx context.Context, f func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil || !f() {
		return
	}
	d.heedChecks()
	d.upstream.Rebalance(onLoop)
	d.wake()
}

// wake has the background look at the upstream's Due.
func (d *discovered) wake() {
	select {
	case d.moved <- struct{}{}:
	default: // it will look
	}
}

// assign puts the endpoints in force that are known now. The caller holds d.mu.
func (d *discovered) assign() {
	members := d.members()
	d.upstream.Assign(members, onLoop)
	if d.known = d.known || len(members) > 0; !d.known { // what the process before knew of endpoints waits for the first
		return
	}
	resumed := d.resume(members) // first: who is disabled is not checked
	unfit, ejected := d.heedChecks(), d.outliers.follow(d.upstream, len(d.registry.workers))
	if resumed || unfit || ejected {
		d.upstream.Rebalance(onLoop)
	}
	d.wake()
	d.registry.keepSoon()
}

// members are the endpoints as far as they are known. The caller holds d.mu.
func (d *discovered) members() (out []upstream.Member) {
	endpoints, over := d.roster.endpoints(d.all), 0
	learned := map[string]bool{}
	for _, w := range d.files {
		for i := range w.endpoints {
			learned[w.endpoints[i].Address] = true
		}
	}
	for i := range endpoints {
		e := &endpoints[i]
		m := upstream.Member{Name: e.Address, Weight: e.Weight, Priority: e.Priority, Zone: e.Zone, Labels: e.Labels,
			Learned: learned[e.Address], Flags: initialFlags(d.spec.Health)}
		add := func(a loop.Address) {
			if len(out) == maxMembers {
				over++
				return
			}
			m.Address, m.Metric = a, d.registry.metrics.Endpoint(d.upstream.Name, a.String())
			out = append(out, m)
		}
		if path, ok := strings.CutPrefix(e.Address, "unix:"); ok {
			add(loop.Address{Path: path})
			continue
		}
		name, port, ok := nameOf(e.Address)
		if !ok {
			add(loop.Address{AddrPort: port})
			continue
		}
		w := d.names[name]
		if w == nil {
			continue // it was added at run time
		}
		for _, t := range w.targets {
			if t.Port > 0 {
				m.Name = net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
				m.Weight, m.Priority, m.Learned = t.Weight, min(e.Priority+t.Priority, maxPriority), true
				add(loop.Address{AddrPort: netip.AddrPortFrom(t.Addr, t.Port)})
				continue
			}
			add(loop.Address{AddrPort: netip.AddrPortFrom(t.Addr, port.Port())})
		}
	}
	if over > 0 {
		d.registry.log.Warn("upstream has more addresses than are used", "upstream", d.upstream.Name, "unused", over)
	}
	return out
}

// maxPriority is the last that an endpoint can be configured with.
const maxPriority = 127

// nameOf gives the name that an endpoint's address has to be resolved from, a host or srv:name, and the port that stands beside a host.
// An address that needs none is given as it is.
func nameOf(address string) (name string, at netip.AddrPort, ok bool) {
	if _, is := discovery.CutService(address); is {
		return address, at, true
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "unix:") {
		return "", at, false
	}
	n, _ := strconv.ParseUint(port, 10, 16) // the configuration has been checked
	a, err := netip.ParseAddr(host)
	return host, netip.AddrPortFrom(a.Unmap(), uint16(n)), err != nil
}

// namesOf are the names of an upstream's endpoints.
func namesOf(u *config.Upstream) map[string]bool {
	names := map[string]bool{}
	for i := range u.Endpoints {
		if name, _, ok := nameOf(u.Endpoints[i].Address); ok {
			names[name] = true
		}
	}
	return names
}

func (r *Registry) settings(u *config.Upstream, t *upstreamTLS) *upstream.Settings {
	s := &upstream.Settings{
		Connect:               u.Timeouts.Connect,
		Handshake:             u.Timeouts.TLS,
		PerTry:                u.Timeouts.PerTry,
		Header:                u.Timeouts.Header,
		Idle:                  u.Timeouts.Idle,
		Total:                 u.Timeouts.Total,
		Tunnel:                u.Timeouts.Tunnel,
		TunnelLife:            u.Timeouts.TunnelLife,
		MaxConnections:        u.Pool.MaxConnections,
		MaxPending:            u.Pool.MaxPending,
		MaxRetries:            u.Pool.MaxRetries,
		QueueTimeout:          u.Pool.QueueTimeout,
		IdlePerLoop:           u.Pool.IdlePerLoop,
		IdleTimeout:           u.Pool.IdleTimeout,
		RequestsPerConnection: u.Pool.RequestsPerConnection,
		ReplayBytes:           u.ReplayBytes,
		Protocol:              r.protocols.of(u),
		Streams:               u.HTTP2.Streams,
		KeepAlive:             u.HTTP2.KeepAlive,
		KeepAliveTimeout:      u.HTTP2.KeepAliveTimeout,
	}
	switch u.Proxy {
	case "v1":
		s.Proxy = upstream.ProxyV1
	case "v2":
		s.Proxy = upstream.ProxyV2
	}
	if t != nil {
		s.TLS = t.config
	}
	s.Balancing = balancing(&u.Balance)
	s.Retry, s.Hedge = retryPolicy(&u.Retry), hedgePolicy(&u.Hedge)
	s.Prepare = prepare(&u.Socket)
	return s
}
