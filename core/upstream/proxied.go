package upstream

import (
	"crypto/tls"
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// ProxyVersion is the version of the PROXY protocol (haproxy's proxy-protocol.txt) that an upstream's connections begin with.
type ProxyVersion uint8

const (
	ProxyNone ProxyVersion = iota // connections begin with the request
	ProxyV1                       // one line of text: addresses alone
	ProxyV2                       // binary: with what is known of the client's TLS, too
)

// owner is whom a connection that began with a PROXY header may serve: that client, on that connection, and nobody else, for
// the endpoint takes every request on it for his. The zero owner is whoever has no address, and of whom the header says nothing.
type owner struct {
	conn *loop.Conn
	addr netip.Addr
}

func ownerOf(x *core.Exchange) owner {
	if !x.Client.Addr.IsValid() {
		return owner{}
	}
	return owner{x.Client.Conn, x.Client.Addr}
}

// fits says whether c may serve x.
func (c *conn) fits(x *core.Exchange) bool {
	return c.endpoint.proxy == ProxyNone || c.owner == ownerOf(x)
}

// position gives the place in idle, the last one used first, of a connection that may serve x; -1: there is none.
func (e *Endpoint) position(idle []*conn, x *core.Exchange) int {
	if e.proxy == ProxyNone {
		return len(idle) - 1
	}
	who := ownerOf(x)
	for i := len(idle) - 1; i >= 0; i-- {
		if idle[i].owner == who {
			return i
		}
	}
	return -1
}

// evict closes the idle connection that was used longest ago and gives the caller its place. Without that, those kept for
// some clients would keep all others from e for as long as they are idle.
func (s *share) evict(e *Endpoint, set *Settings) bool {
	sh := &e.shares[s.worker.Loop.Index()]
	if len(sh.idle) == 0 || e.over(set) {
		return false
	}
	c := sh.idle[0]
	c.evicted = true
	c.raw.Close()
	return true
}

// makeRoom closes the idle connections whose client has gone, and the one used longest ago if no more may be kept.
func (s *share) makeRoom(e *Endpoint, set *Settings) {
	sh := &e.shares[s.worker.Loop.Index()]
	for i := len(sh.idle) - 1; i >= 0; i-- {
		if who := sh.idle[i].owner.conn; who != nil && who.Closed() {
			sh.idle[i].raw.Close() // which takes it out of the list
		}
	}
	if n := len(sh.idle); n > 0 && n >= set.IdlePerLoop {
		sh.idle[0].raw.Close()
	}
}

// announce tells a fresh connection's endpoint whose it is. It waits up to the deadline.
func (c *conn) announce(x *core.Exchange, deadline int64) error {
	l := c.share.worker.Loop
	c.owner = ownerOf(x)
	buf := l.Borrow()
	b := appendProxyHeader(buf[:0], c.endpoint.proxy, x)
	c.raw.Deadline = deadline
	_, err := c.raw.Write(b)
	c.raw.Deadline = 0
	l.Return(buf)
	return err
}

// appendProxyHeader writes the header of x's client. A client behind trusted proxies is named with port 0, since nobody has
// told its port.
func appendProxyHeader(b []byte, v ProxyVersion, x *core.Exchange) []byte {
	source, destination := proxyAddresses(&x.Client)
	if v == ProxyV1 {
		return appendProxyLine(b, source, destination)
	}
	return appendProxyBlock(b, source, destination, x.Client.TLS)
}

// proxyAddresses are both ends of the client's connection, in one family. A source that is not valid: there is none to tell.
func proxyAddresses(c *core.Client) (source, destination netip.AddrPort) {
	if !c.Addr.IsValid() {
		return source, destination
	}
	addr, port := c.Addr.WithZone("").Unmap(), uint16(0)
	if c.Addr == c.Peer.Addr() {
		port = c.Peer.Port()
	}
	to, toPort := netip.IPv4Unspecified(), uint16(0)
	if c.Conn != nil {
		if local := c.Conn.Local(); local.IsValid() {
			to, toPort = local.Addr().WithZone("").Unmap(), local.Port()
		}
	}
	switch {
	case addr.Is4() == to.Is4():
	case to.IsUnspecified():
		to = netip.IPv6Unspecified()
	default: // no header has two families: the one of four bytes is written as RFC 4291, 2.5.5.2, maps it
		addr, to = netip.AddrFrom16(addr.As16()), netip.AddrFrom16(to.As16())
	}
	return netip.AddrPortFrom(addr, port), netip.AddrPortFrom(to, toPort)
}

// appendProxyLine writes version 1 (2.1).
func appendProxyLine(b []byte, source, destination netip.AddrPort) []byte {
	if !source.IsValid() {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	b = append(b, "PROXY TCP6 "...)
	if source.Addr().Is4() {
		b[len(b)-2] = '4'
	}
	b = append(source.Addr().AppendTo(b), ' ')
	b = append(destination.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(source.Port()), 10), ' ')
	return append(strconv.AppendUint(b, uint64(destination.Port()), 10), "\r\n"...)
}

// Of version 2 (2.2): the block's start, and the types of what follows the addresses.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

	tlvAuthority  = 0x02
	tlvSSL        = 0x20
	tlvSSLVersion = 0x21
	tlvSSLCN      = 0x22

	sslClient         = 0x01 // the client came over TLS
	sslCertConnection = 0x02 // and showed a certificate on this connection
	sslCertSession    = 0x04 // or when the session began
)

// appendProxyBlock writes version 2.
func appendProxyBlock(b []byte, source, destination netip.AddrPort, secured *core.TLS) []byte {
	const local, proxy, tcp4, tcp6 = 0x20, 0x21, 0x11, 0x21
	b = append(b, proxySignature...)
	if !source.IsValid() {
		return append(b, local, 0, 0, 0)
	}
	family := byte(tcp6)
	if source.Addr().Is4() {
		family = tcp4
	}
	b = append(b, proxy, family, 0, 0)
	start := len(b)
	b = append(b, source.Addr().AsSlice()...)
	b = append(b, destination.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	b = binary.BigEndian.AppendUint16(b, destination.Port())
	if secured != nil {
		b = appendSecured(b, secured)
	}
	binary.BigEndian.PutUint16(b[start-2:], uint16(len(b)-start))
	return b
}

// appendSecured writes the server name that the client asked for, and PP2_TYPE_SSL (2.2.5).
func appendSecured(b []byte, t *core.TLS) []byte {
	if t.ServerName != "" {
		b = appendTLV(b, tlvAuthority, t.ServerName)
	}
	if t.Version == 0 {
		return b // it is passed through: of its TLS only the name is known
	}
	client, verify := byte(sslClient), uint32(1)
	if t.ClientCert != nil {
		verify = 0
		client |= sslCertSession
		if !t.Resumed {
			client |= sslCertConnection
		}
	}
	version := "TLSv1.2"
	if t.Version == tls.VersionTLS13 {
		version = "TLSv1.3"
	}
	b = append(b, tlvSSL, 0, 0, client)
	start := len(b) - 1
	b = binary.BigEndian.AppendUint32(b, verify)
	b = appendTLV(b, tlvSSLVersion, version)
	if id := t.Identity; id != nil && id.CommonName != "" && len(id.CommonName) <= maxTLV {
		b = appendTLV(b, tlvSSLCN, id.CommonName) // whole or not at all: a part may be somebody else's name
	}
	binary.BigEndian.PutUint16(b[start-2:], uint16(len(b)-start))
	return b
}

// maxTLV bounds what of a client's choosing goes into a header.
const maxTLV = 255

// appendTLV writes a type, a length and a value of at most maxTLV bytes.
func appendTLV(b []byte, kind byte, value string) []byte {
	value = value[:min(len(value), maxTLV)]
	return append(append(b, kind, 0, byte(len(value))), value...)
}
