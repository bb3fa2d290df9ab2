package compile

import (
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/policy/ip"
	"github.com/sluice-gateway/sluice/core/policy/keyauth"
)

func keyAuth(_ *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
	k := p.KeyAuth
	return core.Step{Request: keyauth.New(keyauth.Spec{Carrier: carrierOf(k.Carrier), Hide: k.Hide, Optional: k.Optional}, c.consumers.directory)}, nil
}

func carrierOf(c config.Carrier) core.Carrier {
	return core.Carrier{Header: c.Header, Cookie: c.Cookie, Query: c.Query}
}

func addresses(_ *Registry, _ *Compiled, p *config.Policy, _ string) (core.Step, error) {
	set := func(list []netip.Prefix) ip.Networks {
		if len(list) == 0 {
			return nil
		}
		return listen.NewNetworks(list)
	}
	return core.Step{Request: ip.New(set(p.IP.Allow), set(p.IP.Deny))}, nil
}
