// Package ip is the policy that lets clients pass by their address.
package ip

import (
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
)

// Networks is an immutable set of addresses.
type Networks interface {
	Contains(a netip.Addr) bool
}

// Policy is immutable; loops share it.
type Policy struct{ allow, deny Networks }

// New gives the policy: who is in deny does not pass, nor who is not in allow if there is one. Either may be nil.
func New(allow, deny Networks) *Policy { return &Policy{allow, deny} }

var errDenied = &core.Error{Status: 403, Reason: "address_denied"}

// OnRequest judges the client behind trusted proxies. One without an address, who came by a unix socket, is in no network.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	a := x.Client.Addr
	if p.deny != nil && p.deny.Contains(a) || p.allow != nil && !p.allow.Contains(a) {
		x.Fail(errDenied)
		return core.Respond
	}
	return core.Continue
}
