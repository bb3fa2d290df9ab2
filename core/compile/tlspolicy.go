package compile

import (
	cryptotls "crypto/tls"
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/tls"
)

// policies are how the TLS of some server names of a listener differs. Immutable.
type policies struct {
	configs tls.NameTable[*cryptotls.Config]
	asks    map[*cryptotls.Config]bool // for a certificate of the client
}

// policies makes them, each from the listener's options as far as it says nothing else; nil: there are none.
func (e *Encryption) policies(spec *config.Listener, server tls.ServerOptions) (*policies, []tls.Warning, error) {
	var all []tls.Warning
	p := &policies{asks: map[*cryptotls.Config]bool{}}
	for i := range spec.TLS.Policies {
		one := &spec.TLS.Policies[i]
		o := server
		o.MinVersion, o.Ciphers, o.TicketScope = one.MinVersion, one.Ciphers, policyScope(one)
		if one.Protocols != (config.Protocols{}) {
			o.ALPN = alpn(one.Protocols)
		}
		c, warnings, err := e.config(o, one.ClientAuth, one.Pos)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, warnings...)
		p.asks[c] = one.ClientAuth != nil
		for _, name := range one.Names {
			if err := p.configs.Add(name.String(), c); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", one.Pos, err)
			}
		}
	}
	if len(p.asks) == 0 {
		return nil, nil, nil
	}
	return p, all, nil
}

// policyScope keeps a session that was made under one policy from being resumed under another. It is the same over reloads as long as the
// policy is. No listener's own scope begins like it.
func policyScope(p *config.TLSPolicy) string {
	var b strings.Builder
	b.WriteString("policy")
	for _, name := range p.Names {
		b.WriteString(" " + name.String())
	}
	return fmt.Sprintf("%s, %s %s", b.String(), p.MinVersion, ticketScope(p.ClientAuth))
}

// find gives the policy of a name; nil: the listener's own.
func (p *policies) find(name string) *cryptotls.Config {
	if p == nil {
		return nil
	}
	c, _ := p.configs.Find(name)
	return c
}

// serves says whether the certificate of a name is for a host as well.
type serves interface {
	ServesName(serverName, host string) bool
}

// served says for which hosts a listener's connections may be used. Immutable once all routes have been compiled.
type served struct {
	certificates serves
	settings     *listen.TLS
	policies     *policies
	asks         bool // where no policy says otherwise
}

// ServesName implements core.Names. A host whose TLS is passed through is served by nobody here, whatever certificate covers it,
// and one of another policy than the connection's would be spared what that policy asks.
func (s *served) ServesName(serverName, host string) bool {
	if _, passed := s.settings.Passed.Find(host); passed {
		return false
	}
	return s.policies.find(serverName) == s.policies.find(host) && s.certificates.ServesName(serverName, host)
}

// AsksCert implements core.Names.
func (s *served) AsksCert(serverName string) bool {
	if c := s.policies.find(serverName); c != nil {
		return s.policies.asks[c]
	}
	return s.asks
}
