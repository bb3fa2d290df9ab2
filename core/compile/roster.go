package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/core/config"
)

// roster is how the endpoints of an upstream differ, at run time, from those of its configuration and its files. It is a value: a change makes
// another.
type roster struct {
	added   []config.Endpoint // which these do not have
	removed []string          // addresses as configured
}

// maxAdded bounds the endpoints that an upstream is given at run time.
const maxAdded = 1000

// endpoints are those of spec as r changes them.
func (r *roster) endpoints(spec *config.Upstream) []config.Endpoint {
	if len(r.added) == 0 && len(r.removed) == 0 {
		return spec.Endpoints
	}
	var list []config.Endpoint
	removed, there := map[string]bool{}, map[string]bool{}
	for _, a := range r.removed {
		removed[a] = true
	}
	for i := range spec.Endpoints {
		if a := spec.Endpoints[i].Address; !removed[a] {
			there[a] = true
			list = append(list, spec.Endpoints[i])
		}
	}
	for i := range r.added {
		if !there[r.added[i].Address] { // a file may have come to have it since
			list = append(list, r.added[i])
		}
	}
	return list
}

// change gives what r becomes when addresses are added, removed, or set as the only ones.
func (r *roster) change(spec *config.Upstream, what string, addresses []string) (next roster, err error) {
	next = roster{slices.Clone(r.added), slices.Clone(r.removed)}
	if what == "set" {
		next = roster{}
		for i := range spec.Endpoints {
			if a := spec.Endpoints[i].Address; !slices.Contains(addresses, a) {
				next.removed = append(next.removed, a)
			}
		}
	}
	for _, a := range addresses {
		switch what {
		case "remove":
			err = next.remove(spec, a)
		case "add":
			err = next.add(spec, a)
		default:
			if at(spec.Endpoints, a) < 0 && at(next.added, a) < 0 {
				err = next.add(spec, a)
			}
		}
		if err != nil {
			return *r, err
		}
	}
	return next, nil
}

// add takes an address in that was not there, or was removed.
func (r *roster) add(spec *config.Upstream, address string) error {
	if i := slices.Index(r.removed, address); i >= 0 {
		r.removed = slices.Delete(r.removed, i, i+1)
		return nil
	}
	switch {
	case at(spec.Endpoints, address) >= 0 || at(r.added, address) >= 0:
		return fmt.Errorf("upstream %q has endpoint %q already", spec.Name, address)
	case len(r.added) == maxAdded:
		return fmt.Errorf("cannot add more than %d endpoints", maxAdded)
	case !isAddress(address):
		return fmt.Errorf("cannot add endpoint %q: write an IP address with a port, or unix:/path", address)
	}
	r.added = append(r.added, config.Endpoint{Address: address, Weight: 1})
	return nil
}

func (r *roster) remove(spec *config.Upstream, address string) error {
	if i := at(r.added, address); i >= 0 {
		r.added = slices.Delete(r.added, i, i+1)
		return nil
	}
	if at(spec.Endpoints, address) < 0 || slices.Contains(r.removed, address) {
		return fmt.Errorf("upstream %q has no endpoint %q", spec.Name, address)
	}
	r.removed = append(r.removed, address)
	return nil
}

// after gives what is left of r when the configuration goes from before to spec: what it has changed counts as it says.
func (r *roster) after(before, spec *config.Upstream) (next roster) {
	for _, e := range r.added {
		if at(spec.Endpoints, e.Address) < 0 {
			next.added = append(next.added, e)
		}
	}
	for _, a := range r.removed {
		i, j := at(before.Endpoints, a), at(spec.Endpoints, a)
		if i < 0 || j < 0 {
			continue
		}
		if before.Endpoints[i].Equal(&spec.Endpoints[j]) {
			next.removed = append(next.removed, a)
		}
	}
	return next
}

// at is the place of an address in a list, -1 when it is not there.
func at(list []config.Endpoint, address string) int {
	return slices.IndexFunc(list, func(e config.Endpoint) bool { return e.Address == address })
}

// isAddress says whether text is an endpoint's address in the form that the configuration keeps, which needs no name server.
func isAddress(text string) bool {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		return strings.HasPrefix(path, "/") && len(path) <= maxSocketPath && !strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f })
	}
	a, err := netip.ParseAddrPort(text)
	return err == nil && a.Port() > 0 && a.Addr().Zone() == "" && a.String() == text
}

// maxSocketPath is the longest path of a unix socket (sun_path, with its NUL, is 108 bytes).
const maxSocketPath = 107

// Roster are the endpoints of an upstream that were added and removed at run time. It may be called from any goroutine.
func (c *Compiled) Roster(name string) (added, removed []string) {
	d := c.found[name]
	if d == nil {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.roster.added {
		added = append(added, e.Address)
	}
	return added, slices.Clone(d.roster.removed)
}
