package upstream

import "github.com/sluice-gateway/sluice/core"

// What a client may not say of itself: only a trusted proxy's word is passed on.
var (
	forwardedFields = core.Fields(core.FieldXForwardedFor, core.FieldXForwardedProto, core.FieldXForwardedHost)
	untrustedFields = forwardedFields | core.Fields(core.FieldForwarded, core.FieldXRealIP)
)

// forward tells the upstream who the client is, as the listener is set up to.
func forward(x *core.Exchange) {
	m, f := &x.Request, &x.Listener.Forward
	m.Remove(core.FieldXConsumerName) // nobody but the gateway says who a consumer is, trusted proxies included
	if names := x.Snapshot.Identity; names != nil {
		names.Tell(m, x.Consumer)
	} else if x.Consumer != nil {
		line := m.Begin(core.FieldXConsumerName.String())
		line.String(x.Consumer.Name)
		line.End(core.FieldXConsumerName)
	}
	if f.XForwarded {
		xForwarded(x)
	}
	if f.Forwarded {
		forwarded(x)
	}
	if f.Via != "" {
		addVia(m, f.Via)
	}
	if f.ClientCert {
		clientCert(x)
	}
	if f.XFCC {
		xfcc(x)
	}
	if x.RequestID != nil {
		replaceRequestID(x, f.RequestID)
	}
}

// clientCert passes the client's certificate on. What came under that name is nobody's word (RFC 9440, 4).
func clientCert(x *core.Exchange) {
	m := &x.Request
	m.RemoveName("Client-Cert")
	m.RemoveName("Client-Cert-Chain")
	if t := x.Client.TLS; t != nil && t.ClientCert != nil {
		m.AddName("Client-Cert", t.ClientCert)
	}
}

// xfcc is clientCert in the form that Envoy gave it. What came under that name, or one like it, is nobody's word.
func xfcc(x *core.Exchange) {
	m := &x.Request
	m.RemoveLike("X-Forwarded-Client-Cert")
	if t := x.Client.TLS; t != nil && t.XFCC != nil {
		m.AddName("X-Forwarded-Client-Cert", t.XFCC)
	}
}

// xForwarded appends to a trusted peer's fields, and replaces anybody else's.
func xForwarded(x *core.Exchange) {
	m := &x.Request
	peer := x.Client.Via
	host, scheme := m.Host(), x.Listener.Scheme
	if !x.Client.Trusted {
		m.RemoveSet(untrustedFields)
		line := m.Begin(core.FieldXForwardedFor.String())
		line.Bytes(peer)
		line.End(core.FieldXForwardedFor)
		addHostAndProto(m, host, scheme)
		return
	}
	line := m.Begin(core.FieldXForwardedFor.String())
	m.All(func(id core.FieldID, _, value []byte) bool {
		if id == core.FieldXForwardedFor && len(value) > 0 {
			line.Bytes(value)
			line.String(", ")
		}
		return true
	})
	line.Bytes(peer)
	m.Remove(core.FieldXForwardedFor)
	line.End(core.FieldXForwardedFor)
	if m.Has(core.FieldXForwardedHost) {
		host = nil
	}
	if m.Has(core.FieldXForwardedProto) {
		scheme = ""
	}
	addHostAndProto(m, host, scheme)
}

func addHostAndProto(m *core.Message, host []byte, scheme string) {
	if scheme != "" {
		line := m.Begin(core.FieldXForwardedProto.String())
		line.String(scheme)
		line.End(core.FieldXForwardedProto)
	}
	if len(host) > 0 {
		line := m.Begin(core.FieldXForwardedHost.String())
		line.Bytes(host)
		line.End(core.FieldXForwardedHost)
	}
}

// forwarded adds an element to Forwarded (RFC 7239), after those of a trusted peer.
func forwarded(x *core.Exchange) {
	m := &x.Request
	line := m.Begin(core.FieldForwarded.String())
	if x.Client.Trusted {
		m.All(func(id core.FieldID, _, value []byte) bool {
			if id == core.FieldForwarded && len(value) > 0 {
				line.Bytes(value)
				line.String(", ")
			}
			return true
		})
	}
	switch peer := x.Client.Peer.Addr(); {
	case !peer.IsValid():
		line.String("for=unknown")
	case peer.Is6():
		line.String(`for="[`)
		line.Bytes(x.Client.Via)
		line.String(`]"`)
	default:
		line.String("for=")
		line.Bytes(x.Client.Via)
	}
	if host := m.Host(); len(host) > 0 {
		line.String(`;host="`)
		line.Bytes(host) // the parser lets no quote or backslash through
		line.String(`"`)
	}
	line.String(";proto=")
	line.String(x.Listener.Scheme)
	m.Remove(core.FieldForwarded)
	line.End(core.FieldForwarded)
}

// addVia appends this gateway to the recipients of a message (RFC 9110, 7.6.3).
func addVia(m *core.Message, name string) {
	line := m.Begin(core.FieldVia.String())
	line.String(m.Version())
	line.String(" ")
	line.String(name)
	line.End(core.FieldVia)
}

func replaceRequestID(x *core.Exchange, name string) {
	m := &x.Request
	line := m.Begin(name)
	line.Bytes(x.RequestID)
	m.RemoveName(name)
	line.End(core.LookupField([]byte(name)))
}
