// Package mtls is the policy that knows consumers by the certificates that they showed in the TLS handshake.
package mtls

import "github.com/sluice-gateway/sluice/core"

// Policy is immutable; loops share it.
type Policy struct {
	consumers *core.Consumers
	optional  bool
}

// New gives the policy. optional: a client without a certificate passes, and has no consumer.
func New(consumers *core.Consumers, optional bool) *Policy { return &Policy{consumers, optional} }

var errUnknown = &core.Error{Status: 403, Reason: "client_cert_unknown"}

// OnRequest finds the consumer of the client's certificate, which the listener has verified. There is no challenge to send: how
// to show a certificate is the handshake's business.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	t := x.Client.TLS
	if t == nil || t.Identity == nil {
		if p.optional {
			return core.Continue
		}
		x.Fail(core.ErrClientCert)
		return core.Respond
	}
	c := p.consumers.Directory().ByCertificate(t.Identity)
	if c == nil {
		x.Fail(errUnknown)
		return core.Respond
	}
	x.Consumer = c
	return core.Continue
}
