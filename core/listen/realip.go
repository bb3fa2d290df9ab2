package listen

import (
	"bytes"
	"fmt"
	"net/netip"

	"github.com/sluice-gateway/sluice/core"
)

const (
	// maxForwardLines bounds the lines of the header that are looked at, from the last one back.
	maxForwardLines = 32
	// MaxDepth bounds RealIP's depth.
	MaxDepth = 64
)

// RealIP is the policy that finds the client behind trusted proxies. A peer that is not trusted is the client itself,
// whatever it sends. Each proxy adds the address of its own peer on the right, so that the list is believed from the right
// for as long as those who wrote it are trusted: a client can write only what stands further left.
//
// It runs before routing (core.Listener.Before), once for each request, and allocates nothing. Immutable.
type RealIP struct {
	trusted *Networks
	depth   int
	field   core.FieldID
}

// NewRealIP gives the policy that reads header from peers in trusted. header is X-Forwarded-For, Forwarded (RFC 7239) or
// X-Real-IP. depth > 0: the client is the depth-th address from the right, for proxies whose addresses are not known;
// 0: the first from the right that is not trusted itself. Where the list ends before, or an entry is malformed, hidden or
// unknown, the last good address counts, the peer's if there is none.
func NewRealIP(header string, trusted []netip.Prefix, depth int) (*RealIP, error) {
	r := &RealIP{trusted: NewNetworks(trusted), depth: depth, field: core.LookupField([]byte(header))}
	switch r.field {
	case core.FieldXForwardedFor, core.FieldForwarded, core.FieldXRealIP:
	default:
		return nil, fmt.Errorf("cannot read client addresses from %q: want X-Forwarded-For, Forwarded or X-Real-IP", header)
	}
	if depth < 0 || depth > MaxDepth {
		return nil, fmt.Errorf("cannot read client addresses at depth %d: want 0 to %d", depth, MaxDepth)
	}
	return r, nil
}

// OnRequest sets x.Client from the request of a trusted peer.
func (r *RealIP) OnRequest(x *core.Exchange) core.Verdict {
	if !r.trusted.Trusts(x.Client.Peer.Addr()) {
		return core.Continue
	}
	x.Client.Trusted = true
	if a := r.client(&x.Request.Header); a.IsValid() {
		x.SetClient(a)
	}
	return core.Continue
}

// client is the address that the header tells; zero: none.
func (r *RealIP) client(h *core.Header) netip.Addr {
	var lines [maxForwardLines][]byte // the last ones, in a ring
	count := 0
	h.All(func(id core.FieldID, _, value []byte) bool {
		if id == r.field {
			lines[count%maxForwardLines] = value
			count++
		}
		return true
	})
	w := walk{trusted: r.trusted, depth: r.depth}
	for i := count - 1; i >= 0 && i >= count-maxForwardLines; i-- {
		line := lines[i%maxForwardLines]
		over := false
		switch r.field {
		case core.FieldXForwardedFor:
			over = w.list(line)
		case core.FieldForwarded:
			over = w.forwarded(line)
		default: // X-Real-IP holds one address, and the last proxy's line is the one to believe
			w.add(parseNode(line))
			over = true
		}
		if over {
			break
		}
	}
	return w.client
}

// walk goes over addresses from the right to the left until it knows the client.
type walk struct {
	trusted *Networks
	depth   int
	seen    int
	client  netip.Addr // the last good one
}

// add takes the next address, and says whether the walk is over. One that is not good ends it.
func (w *walk) add(a netip.Addr, good bool) bool {
	if !good {
		return true
	}
	w.client = a
	w.seen++
	if w.depth > 0 {
		return w.seen >= w.depth
	}
	return !w.trusted.Contains(a)
}

// list walks over one line of X-Forwarded-For. Empty elements do not count (RFC 9110, 5.6.1.2).
func (w *walk) list(line []byte) bool {
	for {
		comma := bytes.LastIndexByte(line, ',')
		if element := trim(line[comma+1:]); len(element) > 0 && w.add(parseNode(element)) {
			return true
		}
		if comma < 0 {
			return false
		}
		line = line[:comma]
	}
}

// parseNode reads an address with or without port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func parseNode(b []byte) (netip.Addr, bool) {
	if len(b) > 0 && b[0] == '[' {
		return parseBracketed(b)
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 && bytes.IndexByte(b[i+1:], ':') < 0 {
		a, ok := parseAddr(b[:i])
		_, port := parsePort(b[i+1:])
		return a, ok && port && a.Is4()
	}
	a, ok := parseAddr(b)
	return a.Unmap(), ok
}

// parseBracketed reads [2001:db8::1] with or without port.
func parseBracketed(b []byte) (netip.Addr, bool) {
	end := bytes.IndexByte(b, ']')
	if end < 0 {
		return netip.Addr{}, false
	}
	if rest := b[end+1:]; len(rest) > 0 {
		if _, ok := parsePort(rest[1:]); !ok || rest[0] != ':' {
			return netip.Addr{}, false
		}
	}
	a, ok := parseAddr(b[1:end])
	return a.Unmap(), ok && a.Is6()
}

// trim takes the optional white space off both ends (RFC 9110, 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
