// Package listen accepts downstream connections: a SO_REUSEPORT socket for each loop, so that the kernel spreads them;
// the PROXY protocol before the first byte of HTTP; caps on open connections; the drain that ends it.
//
// A listener of the configuration has, for each address it is bound to, one Sockets with one descriptor a loop; one Caps,
// which all loops share; and on each loop one Port, which accepts. What speaks on a connection is made by a Protocol, so
// that this package knows no HTTP but for RealIP: the request policy that finds the client behind trusted proxies.
package listen

import (
	cryptotls "crypto/tls"
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/tls"
)

// Protocol makes the handler of a connection of p, on its loop. The handler is served at once if there is something to read,
// else when the first byte comes. Its method Closed(c *loop.Conn), which the loop calls once, must call p.Release(a.Peer).
type Protocol func(c *loop.Conn, p *Port, a Accepted) loop.Handler

// Accepted is a connection that is ready for its protocol.
type Accepted struct {
	Peer  netip.AddrPort // who connected, or whom the PROXY header named; zero for a unix socket
	TLS   *core.TLS      // nil: not encrypted
	HTTP2 bool           // agreed on in the handshake, or begun with
	Route *core.Route    // nil: TLS was ended here, or there is none. Else TLS is passed through to it
	Early []byte         // what was read from the connection already; valid until Protocol returns
}

// Settings are what a Port needs to know of its listener. Immutable; a reload puts others in their place.
type Settings struct {
	Listener *core.Listener
	Proxies  *Networks // peers that must send a PROXY header, while all others are refused; nil: no PROXY protocol
	TLS      *TLS      // nil: not encrypted
	H1, H2C  bool      // without TLS: HTTP/1.1, HTTP/2 by prior knowledge, or either
	Rate     Rate      // of connections of one client
	QuickAck bool      // what is read of a TCP connection is acknowledged at once, for its life: see loop.Conn
}

// TLS is how connections of a listener are encrypted.
type TLS struct {
	Config     *cryptotls.Config           // nil: none is ended here
	Passed     *tls.NameTable[*core.Route] // whose TLS is passed through, by server name; nil: nobody's
	Names      core.Names                  // of the certificates; nil: any host may be asked for
	Timeout    time.Duration               // for the whole handshake; 0: none
	Rate       int                         // connections a second that one loop takes, and as many at once after a pause; 0: no limit
	Handshakes int                         // at once on one loop, silent ones included; what comes beyond is refused
}

// Reason says why a connection was refused before its protocol saw it.
type Reason uint8

const (
	OverConnections      Reason = iota // the listener has as many open as it may
	OverConnectionsPerIP               // the client has
	OverConnectionRate                 // the client has made as many in this time as it may
	UnknownProxy                       // the peer may not send a PROXY header
	BadProxyHeader                     // it is malformed
	LateProxyHeader                    // it was not whole in time
	OverHandshakes                     // the loop has as many in their handshake as it may
	OverHandshakeRate                  // the loop has taken as many in this second
	BadHandshake                       // it failed
	LateHandshake                      // it was not over in time
	UnknownName                        // the server name is nobody's, where TLS is only passed through
	NotAdopted                         // the loop could not watch the socket
	OverMemory                         // memory is short
	reasonCount
)

func (r Reason) String() string {
	return [...]string{"connections", "connections_per_ip", "connection_rate_per_ip", "proxy_unknown", "proxy_malformed", "proxy_timeout", "tls_handshakes", "tls_handshake_rate", "tls_failed", "tls_timeout", "tls_unknown_name", "not_adopted", "memory"}[r]
}

// Reasons are all the reasons, for those who name their counters.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Counters are a port's; all but Open only grow.
type Counters struct {
	Open     int                 // connections now, those still in their PROXY header included
	Accepted uint64              // taken over from the kernel and not refused at once
	Refused  [reasonCount]uint64 // by Reason
	// Of TLS: in their handshake now, and handshakes that succeeded; Resumed of them by a ticket.
	Handshaking         int
	Handshakes, Resumed uint64
	Passed              uint64 // connections whose TLS was passed through
	Failures            uint64 // accepts that failed for want of descriptors or memory
}
