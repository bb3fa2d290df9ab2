package compile

import (
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/core/config"
)

// maxBareHosts bounds the hosts that one compilation warns of; what is over is counted.
const maxBareHosts = 20

// hostsOf warns of hosts that routes name and that clients can reach by no listener's certificate: their handshakes end in another
// name's. A match of any listener is content with one that has it, a match of certain listeners wants it of each with TLS.
func (r *Registry) hostsOf(c *Compiled) error {
	var encrypted []*config.Listener
	for i := range c.Config.Listeners {
		if l := &c.Config.Listeners[i]; c.Encrypted[l.Name] != nil {
			encrypted = append(encrypted, l)
		}
	}
	if len(encrypted) == 0 {
		return nil
	}
	bare := &bareHosts{compiled: c, known: map[string]bool{}, seen: map[string]bool{}}
	for i := range c.Config.Routes {
		route := &c.Config.Routes[i]
		if route.Passthrough {
			continue // its upstream shows the certificate
		}
		for j := range route.Matches {
			if m := &route.Matches[j]; m.Host.Name != "" {
				bare.look(m, encrypted)
			}
		}
	}
	bare.end()
	return nil
}

// bareHosts are the hosts without a certificate, as far as they were found.
type bareHosts struct {
	compiled *Compiled
	known    map[string]bool // by listener and host: whether there is a certificate
	seen     map[string]bool // likewise, that were warned of
	over     int
	last     Warning
}

func (b *bareHosts) look(m *config.Match, encrypted []*config.Listener) {
	if len(m.Listeners()) == 0 {
		if !slices.ContainsFunc(encrypted, func(l *config.Listener) bool { return b.bears(l, m.Host) }) {
			b.warn(encrypted[0], m, len(encrypted))
		}
		return
	}
	for _, l := range encrypted {
		if slices.Contains(m.Listeners(), l.Name) && !b.bears(l, m.Host) {
			b.warn(l, m, 1)
		}
	}
}

func (b *bareHosts) warn(l *config.Listener, m *config.Match, listeners int) {
	key := l.Name + " " + m.Host.String()
	if b.seen[key] {
		return
	}
	b.seen[key] = true
	text := fmt.Sprintf("wrong host: none of its certificates is for %q", m.Host)
	if listeners > 1 {
		text = fmt.Sprintf("wrong host: none of its certificates is for %q, nor is one of another listener", m.Host)
	}
	b.last = Warning{At: m.Pos, Message: "certificate", Noun: "listener", Name: l.Name, Text: text}
	if len(b.seen) > maxBareHosts {
		b.over++
		return
	}
	b.compiled.warn(b.last)
}

func (b *bareHosts) end() {
	if b.over > 0 {
		b.last.Text = fmt.Sprintf("wrong host: %d more hosts have no certificate", b.over)
		b.compiled.warn(b.last)
	}
}

// bears is Compiled.bears, once for each host: a wildcard is compared with all names of a store.
func (b *bareHosts) bears(l *config.Listener, h config.Host) bool {
	key := l.Name + " " + h.String()
	has, known := b.known[key]
	if !known {
		has = b.compiled.bears(l, h)
		b.known[key] = has
	}
	return has
}

// bears says whether l has a certificate for a host, or of a wildcard for one below it, or gets it from an authority.
func (c *Compiled) bears(l *config.Listener, h config.Host) bool {
	if c.Encrypted[l.Name].Store.Bears(h.String()) {
		return true
	}
	a := l.TLS.ACME
	if a == nil {
		return false
	}
	if a.OnDemand != nil { // whose rule an outside service may decide
		return true
	}
	return slices.ContainsFunc(a.Names, func(name string) bool {
		if h.Wildcard {
			return below(name, h.Name)
		}
		return name == h.Name
	})
}

// below says whether name is suffix with one label or more before it.
func below(name, suffix string) bool {
	n := len(name) - len(suffix)
	return n > 1 && name[n-1] == '.' && name[n:] == suffix
}
