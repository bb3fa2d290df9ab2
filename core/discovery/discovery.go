// Package discovery finds out for which addresses the names of endpoints stand, by DNS (RFC 1034, RFC 1035), and asks again when what
// was said is no longer good.
//
// A Resolver asks: /etc/hosts first, then the name servers, over the search domains of resolv.conf(5). A Name is one name that is asked
// for again and again: it keeps what was found as long as nothing else is, and says when it wants to be looked at next. Neither has a
// goroutine of its own, and nothing here knows what is done with an address.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

const (
	// MaxTargets bounds what one name can stand for.
	MaxTargets = 256
	// maxAtOnce bounds the lookups of a System that are under way.
	maxAtOnce = 64
	// hostsTTL is how long a line of /etc/hosts is good.
	hostsTTL = 5 * time.Second
	// maxChain bounds the CNAMEs from a name to its records.
	maxChain = 16
)

// Family says which addresses are wanted.
type Family uint8

const (
	Any Family = iota
	V4
	V6
)

// Settings say whom a Resolver asks, for what.
type Settings struct {
	Servers []netip.AddrPort // in this order; none: those of resolv.conf, as it stands at each question
	Timeout time.Duration    // for the addresses of a name, all servers and repetitions together; above zero
	Family  Family
}

// Resolver asks for names. It may be used by several goroutines at a time, and holds nothing open.
type Resolver struct {
	settings Settings
	system   *System
}

// New gives a resolver. Several may share a system.
func New(s Settings, system *System) *Resolver { return &Resolver{s, system} }

var (
	errNoName    = errors.New("there is no such name")
	errNoRecords = errors.New("the name has no such records")
	errNoService = errors.New("the service is said not to be available")
)

// found is what was said of one family of a host's addresses.
type found struct {
	addrs []netip.Addr // sorted, each once
	ttl   time.Duration
	err   error // the addresses are not known
}

// families are those of Family in the order of found: IPv4, IPv6.
type families [2]found

func (s *Settings) wants(family int) bool {
	return s.Family == Any || s.Family == V4 && family == 0 || s.Family == V6 && family == 1
}

// addresses looks a host up. If err is nil at least one family has an address; the other may have failed.
func (r *Resolver) addresses(ctx context.Context, host string) (all families, err error) {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return all, err
	}
	defer leave()
	if known := r.system.host(host); known != nil {
		for _, a := range known {
			family := 0
			if a.Is6() {
				family = 1
			}
			if f := &all[family]; r.settings.wants(family) {
				f.addrs, f.ttl = append(f.addrs, a), hostsTTL
			}
		}
		for i := range all {
			all[i].addrs = tidy(all[i].addrs)
		}
		if len(all[0].addrs)+len(all[1].addrs) == 0 {
			return all, errNoRecords
		}
		return all, nil
	}
	err = r.search(host, func(name string) error {
		all = r.both(ctx, name)
		switch {
		case len(all[0].addrs)+len(all[1].addrs) > 0:
			return nil
		case all[0].err == nil || all[0].err == errNoName && all[1].err != nil: // what failed before what is not there
			return cmp.Or(all[1].err, errNoRecords)
		}
		return all[0].err
	})
	return all, err
}

// enter waits for a turn, and bounds the time of all that follows.
func (r *Resolver) enter(ctx context.Context) (bounded context.Context, leave func(), err error) {
	bounded, cancel := context.WithTimeout(ctx, r.settings.Timeout)
	select {
	case r.system.slots <- struct{}{}:
		return bounded, func() { cancel(); <-r.system.slots }, nil
	case <-bounded.Done():
		cancel()
		return nil, nil, errors.New("too many lookups are under way")
	}
}

// search tries the names that host may be short for. Only one that does not exist, or has no such records, leads to the next: who cannot
// be asked might have said that it does.
func (r *Resolver) search(host string, try func(name string) error) error {
	err := error(errNoName)
	for _, name := range r.system.names(host) {
		if err = try(name); err != errNoName && err != errNoRecords {
			return err
		}
	}
	return err
}

// both asks for IPv4 and IPv6 at the same time. A family that the name does not have is no error, if it has the other.
func (r *Resolver) both(ctx context.Context, name string) (all families) {
	ended := make(chan struct{})
	go func() {
		all[1] = r.family(ctx, name, 1)
		close(ended)
	}()
	all[0] = r.family(ctx, name, 0)
	<-ended
	for i := range all {
		if f := &all[i]; f.err == errNoRecords || f.err == errNoName && len(all[1-i].addrs) > 0 {
			f.err = nil
		}
	}
	return all
}

func (r *Resolver) family(ctx context.Context, name string, family int) (f found) {
	if !r.settings.wants(family) {
		return f
	}
	var records []record
	records, f.ttl, f.err = r.records(ctx, name, addressTypes[family])
	for i := range records {
		if a := records[i].addr; a.IsValid() {
			f.addrs = append(f.addrs, a)
		}
	}
	if f.addrs = tidy(f.addrs); f.err == nil && len(f.addrs) == 0 {
		f.err = errNoRecords
	}
	return f
}

// tidy sorts addresses and leaves out those to which nothing can be sent: an answer of 0.0.0.0 would lead to this host.
func tidy(addrs []netip.Addr) []netip.Addr {
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" })
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), MaxTargets)]
}

// services looks up the SRV records of a name (RFC 2782).
func (r *Resolver) services(ctx context.Context, name string) (list []service, ttl time.Duration, err error) {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	err = r.search(name, func(name string) error {
		records, t, err := r.records(ctx, name, typeSRV)
		if err != nil {
			return err
		}
		if list, ttl = arrange(records), t; len(list) == 0 {
			return errNoService
		}
		return nil
	})
	return list, ttl, err
}
