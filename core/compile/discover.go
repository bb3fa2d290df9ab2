package compile

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// resolveTimeout bounds the wait for a name's addresses.
const resolveTimeout = 3 * time.Second

// maxAddresses bounds the endpoints that one name can stand for.
const maxAddresses = 256

// discovered is an upstream whose endpoints, and their shares, are kept up to date: names are resolved again and again, and slow
// start has its steps. While a name does not resolve its last addresses stay.
type discovered struct {
	registry *Registry
	upstream *upstream.Upstream
	moved    chan struct{} // the upstream's Due is another: the background looks at it

	mu     sync.Mutex // configure, change and the background
	spec   *config.Upstream
	tls    *upstreamTLS            // in force; nil: not encrypted
	known  map[string][]netip.Addr // by host name, as last resolved
	roster roster                  // endpoints of run time
	quit   context.CancelFunc      // ends the background; nil: there is none
	done   sync.WaitGroup
}

// discover makes a new upstream, with the names of u resolved once.
func (r *Registry) discover(u *config.Upstream) *discovered {
	d := &discovered{registry: r, known: map[string][]netip.Addr{}, moved: make(chan struct{}, 1)}
	d.upstream = upstream.New(u.Name, r.metrics.Pool(u.Name), r.settings(u, nil), r.workers)
	return d
}

// configure puts u in force: settings, endpoints, and the pace of resolving.
func (d *discovered) configure(u *config.Upstream, t *upstreamTLS) {
	d.stop()
	ctx, quit := context.WithCancel(context.Background())
	hosts := hostsOf(u)
	found := d.resolve(ctx, hosts)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spec != nil {
		d.roster = d.roster.after(d.spec, u)
	}
	d.spec, d.tls = u, t
	d.upstream.Configure(d.registry.settings(u, t))
	maps.Copy(d.known, found)
	d.upstream.Assign(d.members(), onLoop)
	d.quit = quit
	d.done.Go(func() { d.run(ctx, hosts, u.Resolve) })
	if t != nil && t.store != nil {
		d.done.Go(func() { t.store.Watch(ctx, watchEvery, d.renewed) })
	}
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

// run is the background of one configuration.
func (d *discovered) run(ctx context.Context, hosts []string, every time.Duration) {
	var again <-chan time.Time
	if len(hosts) > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		again = t.C
	}
	step := time.NewTimer(time.Hour)
	defer step.Stop()
	for {
		if due := d.upstream.Due(); due > 0 {
			step.Reset(time.Duration(due))
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			d.renew(ctx, hosts)
		case <-step.C:
			d.change(ctx, func() {})
		case <-d.moved:
		}
	}
}

// renew resolves the names anew.
func (d *discovered) renew(ctx context.Context, hosts []string) {
	found := d.resolve(ctx, hosts)
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.members()
	maps.Copy(d.known, found)
	if now := d.members(); ctx.Err() == nil && !slices.Equal(before, now) {
		d.registry.log.Info("upstream resolves to other addresses", "upstream", d.upstream.Name, "endpoints", len(now))
		d.upstream.Assign(now, onLoop)
	}
}

// change runs f, which changes loads of endpoints, and puts the shares in force that follow from it, unless ctx has ended.
func (d *discovered) change(ctx context.Context, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	f()
	d.upstream.Rebalance(onLoop)
	select {
	case d.moved <- struct{}{}:
	default: // it will look
	}
}

// hostsOf are the names to be resolved.
func hostsOf(u *config.Upstream) (hosts []string) {
	for i := range u.Endpoints {
		if host, _, ok := hostPort(u.Endpoints[i].Address); ok {
			if _, err := netip.ParseAddr(host); err != nil {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// resolve looks the names up, all at once. What does not resolve is missing.
func (d *discovered) resolve(ctx context.Context, hosts []string) map[string][]netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	all := map[string][]netip.Addr{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, host := range hosts {
		wg.Go(func() {
			found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			if err != nil || len(found) == 0 {
				d.registry.log.Warn("cannot resolve endpoint: its last addresses stay", "upstream", d.upstream.Name, "host", host, "error", err)
				return
			}
			for i := range found {
				found[i] = found[i].Unmap()
			}
			slices.SortFunc(found, netip.Addr.Compare)
			found = slices.Compact(found)
			mu.Lock()
			all[host] = found[:min(len(found), maxAddresses)]
			mu.Unlock()
		})
	}
	wg.Wait()
	return all
}

// members are the endpoints as far as they are known.
func (d *discovered) members() (out []upstream.Member) {
	add := func(e *config.Endpoint, a loop.Address) {
		metric := d.registry.metrics.Endpoint(d.upstream.Name, a.String())
		out = append(out, upstream.Member{Name: e.Address, Address: a, Weight: e.Weight, Metric: metric, Priority: e.Priority, Zone: e.Zone})
	}
	endpoints := d.roster.endpoints(d.spec)
	for i := range endpoints {
		e := &endpoints[i]
		if path, ok := strings.CutPrefix(e.Address, "unix:"); ok {
			add(e, loop.Address{Path: path})
			continue
		}
		host, port, ok := hostPort(e.Address)
		if !ok {
			continue // the configuration has been checked
		}
		if a, err := netip.ParseAddr(host); err == nil {
			add(e, loop.Address{AddrPort: netip.AddrPortFrom(a.Unmap(), port)})
			continue
		}
		for _, a := range d.known[host] {
			add(e, loop.Address{AddrPort: netip.AddrPortFrom(a, port)})
		}
	}
	return out
}

func hostPort(address string) (host string, port uint16, ok bool) {
	h, p, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "unix:") {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return h, uint16(n), err == nil
}

func (r *Registry) settings(u *config.Upstream, t *upstreamTLS) *upstream.Settings {
	s := &upstream.Settings{
		Connect:               u.Timeouts.Connect,
		Header:                u.Timeouts.Header,
		Idle:                  u.Timeouts.Idle,
		Total:                 u.Timeouts.Total,
		Tunnel:                u.Timeouts.Tunnel,
		TunnelLife:            u.Timeouts.TunnelLife,
		MaxConnections:        u.Pool.MaxConnections,
		MaxPending:            u.Pool.MaxPending,
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
	s.Prepare = prepare(&u.Socket)
	return s
}
