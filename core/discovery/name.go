package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Schedule says when a name is asked for again.
type Schedule struct {
	Every    time.Duration // whatever the answer's TTL is; 0: that counts
	Min, Max time.Duration // bounds of the TTL
}

const (
	firstRetry = time.Second      // after a failure; each next one doubles it
	lastRetry  = 30 * time.Second // at most, and no more than would have been waited without a failure
)

// after is when an answer is no longer good.
func (s *Schedule) after(ttl time.Duration) time.Duration {
	if s.Every > 0 {
		return s.Every
	}
	return min(max(ttl, s.Min), s.Max)
}

// retry is how long after the n-th failure in a row the next try comes: half of it is chance, so that gateways do not ask in step.
func (s *Schedule) retry(n int) time.Duration {
	most := min(s.Max, lastRetry)
	if s.Every > 0 {
		most = min(s.Every, lastRetry)
	}
	d := firstRetry
	for ; n > 1 && d < most; n-- {
		d *= 2
	}
	d = min(d, most)
	return d/2 + rand.N(d/2+1)
}

// Target is one place where a name's endpoint is. Targets may be compared.
type Target struct {
	Host     string     `json:"host,omitempty"` // of an SRV record; "": the name's own
	Addr     netip.Addr `json:"addr"`
	Port     uint16     `json:"port,omitempty"`     // likewise, as are those below; 0: none was said
	Weight   int        `json:"weight,omitempty"`   // 1..1000
	Priority int        `json:"priority,omitempty"` // from 0, without gaps, 0 is used first
}

// family is the place of the address among those of a host.
func (t *Target) family() int {
	if t.Addr.Is6() {
		return 1
	}
	return 0
}

// maxName is the longest name, without the dot that ends it (RFC 1035, 3.1).
const maxName = 253

// Possible says whether a name can have such a target.
func (t *Target) Possible() bool {
	if !t.Addr.IsValid() || t.Addr.Zone() != "" || t.Addr.Is4In6() {
		return false
	}
	if t.Port == 0 {
		return *t == Target{Addr: t.Addr}
	}
	return t.Host != "" && len(t.Host) <= maxName && t.Weight >= 1 && t.Weight <= maxWeight && t.Priority >= 0 && t.Priority < MaxTargets
}

// Name is a name that is asked for again and again. What was found last stays until something else is. One goroutine at a time uses it.
type Name struct {
	resolver *Resolver
	schedule Schedule
	now      func() time.Time
	name     string
	service  bool // it has SRV records, which name hosts; else it is the only host
	srv      timing
	services []service
	hosts    map[string]*host
	targets  []Target
}

// host is a name with addresses.
type host struct {
	timing
	addrs [2][]netip.Addr // by family
}

// timing is when something is asked for.
type timing struct {
	due      time.Time // zero: at once
	resolved time.Time // when it was last known anew
	failures int       // in a row
	err      error
}

func (t *timing) settle(now time.Time, s *Schedule, ttl time.Duration, err error) {
	t.err = err
	if err == nil {
		t.failures, t.resolved, t.due = 0, now, now.Add(s.after(ttl))
		return
	}
	t.failures++
	t.due = now.Add(s.retry(t.failures))
}

// NewHost gives a name with addresses; nothing is asked before the first Look. now is the clock.
func NewHost(r *Resolver, s Schedule, name string, now func() time.Time) *Name {
	return &Name{resolver: r, schedule: s, now: now, name: name, hosts: map[string]*host{"": {}}}
}

// NewService gives a name with SRV records.
func NewService(r *Resolver, s Schedule, name string, now func() time.Time) *Name {
	return &Name{resolver: r, schedule: s, now: now, name: name, service: true, hosts: map[string]*host{}}
}

// Adopt makes n begin with what before, which is not used any more, has found under the same name. It is asked for anew at once.
func (n *Name) Adopt(before *Name) {
	if before.name != n.name || before.service != n.service {
		return
	}
	n.services, n.srv.resolved = before.services, before.srv.resolved
	for name, h := range before.hosts {
		again := &host{timing: timing{resolved: h.resolved}}
		for i := range h.addrs {
			if n.resolver.settings.wants(i) {
				again.addrs[i] = h.addrs[i]
			}
		}
		n.hosts[name] = again
	}
	if n.compile(); len(n.targets) == 0 { // what was recalled, and not found yet
		n.Recall(before.targets)
	}
}

// Recall makes n, of which nothing is known, begin with targets that another process has found. They stay until something is found; it is asked
// for at once.
func (n *Name) Recall(targets []Target) {
	n.targets = nil
	for _, t := range targets {
		if family := t.family(); n.resolver.settings.wants(family) && (t.Port > 0) == n.service && len(n.targets) < MaxTargets {
			n.targets = append(n.targets, t)
		}
	}
}

// Due is when Look wants to be called: the zero time before the first.
func (n *Name) Due() time.Time {
	due := n.srv.due
	for _, h := range n.hosts {
		if !n.service || h.due.Before(due) {
			due = h.due
		}
	}
	return due
}

// Targets are what the name stands for, MaxTargets at most, in an order that does not change. They are not to be changed.
func (n *Name) Targets() []Target { return n.targets }

// Resolved is when something was last found; zero: never.
func (n *Name) Resolved() time.Time {
	at := n.srv.resolved
	for _, h := range n.hosts {
		if h.resolved.After(at) {
			at = h.resolved
		}
	}
	return at
}

// Err is why something of it could not be resolved at the last try, nil if nothing failed.
func (n *Name) Err() error {
	if n.srv.err != nil {
		return n.srv.err
	}
	var names []string
	for name, h := range n.hosts {
		if h.err != nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	name := slices.Min(names)
	if name == "" {
		return n.hosts[name].err
	}
	return fmt.Errorf("%s: %w", name, n.hosts[name].err)
}

// Look asks for what is due, and says whether Targets are others now. It takes the resolver's timeout at most, twice that for SRV records.
// What failed is as it was, and is asked for again sooner.
func (n *Name) Look(ctx context.Context) (changed bool) {
	if n.service && !n.srv.due.After(n.now()) {
		n.lookService(ctx)
	}
	var under sync.WaitGroup
	for name, h := range n.hosts {
		if h.due.After(n.now()) {
			continue
		}
		under.Go(func() { n.lookHost(ctx, cmp.Or(name, n.name), h) })
	}
	under.Wait()
	before := n.targets
	if n.compile(); len(n.targets) == 0 { // of a new set of hosts nothing resolves yet
		n.targets = before
	}
	return !slices.Equal(before, n.targets)
}

func (n *Name) lookService(ctx context.Context) {
	list, ttl, err := n.resolver.services(ctx, n.name)
	if n.srv.settle(n.now(), &n.schedule, ttl, err); err != nil {
		return
	}
	n.services = list
	hosts := make(map[string]*host, len(list))
	for i := range list {
		name := list[i].host
		if h := n.hosts[name]; h != nil {
			hosts[name] = h
		} else if hosts[name] == nil {
			hosts[name] = &host{}
		}
	}
	n.hosts = hosts
}

func (n *Name) lookHost(ctx context.Context, name string, h *host) {
	if a, err := netip.ParseAddr(name); err == nil { // no SRV record may say so, and some do
		family := 0
		if a.Is6() {
			family = 1
		}
		h.addrs[family] = []netip.Addr{a}
		h.settle(n.now(), &n.schedule, n.schedule.Max, nil)
		return
	}
	all, err := n.resolver.addresses(ctx, name)
	if err != nil {
		h.settle(n.now(), &n.schedule, 0, err)
		return
	}
	ttl := time.Duration(1<<63 - 1)
	var partly error
	for i := range all {
		switch f := &all[i]; {
		case f.err != nil: // the addresses of that family stay
			partly = errors.Join(partly, f.err)
			continue
		case len(f.addrs) > 0:
			ttl = min(ttl, f.ttl)
		}
		h.addrs[i] = all[i].addrs
	}
	h.settle(n.now(), &n.schedule, ttl, partly)
}

// compile makes the targets of what is known.
func (n *Name) compile() {
	n.targets = nil
	if !n.service {
		for _, addrs := range n.hosts[""].addrs {
			for _, a := range addrs {
				n.targets = append(n.targets, Target{Addr: a})
			}
		}
		n.targets = n.targets[:min(len(n.targets), MaxTargets)]
		return
	}
	seen := map[netip.AddrPort]bool{}
	for _, s := range n.services {
		h := n.hosts[s.host]
		if h == nil {
			continue
		}
		for _, addrs := range h.addrs {
			for _, a := range addrs {
				at := netip.AddrPortFrom(a, s.port)
				if seen[at] || len(n.targets) == MaxTargets {
					continue
				}
				seen[at] = true
				n.targets = append(n.targets, Target{Host: s.host, Addr: a, Port: s.port, Weight: s.weight, Priority: s.priority})
			}
		}
	}
}

// String is the name as it is written for an endpoint, without a port.
func (n *Name) String() string {
	if n.service {
		return Service + n.name
	}
	return n.name
}

// Service is what the address of an endpoint begins with that is a name of SRV records.
const Service = "srv:"

// CutService takes Service off an address.
func CutService(address string) (name string, ok bool) { return strings.CutPrefix(address, Service) }
