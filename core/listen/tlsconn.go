package listen

import (
	cryptotls "crypto/tls"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/tls"
)

// tlsConn shakes hands on a connection and then gives it to the protocol that was agreed on.
type tlsConn struct {
	port     *Port
	tls      *TLS // as the listener was set up when the connection came
	peer     netip.AddrPort
	early    []byte // what was read before the handshake
	deadline int64  // for the whole handshake; 0: none
	began    bool
	failed   bool // and counted
}

func (h *tlsConn) String() string { return "TLS handshake of " + h.peer.String() }

// Closed ends the count of a connection that never came to its protocol.
func (h *tlsConn) Closed(c *loop.Conn) {
	if !h.failed && !h.began && h.deadline != 0 && c.Loop().Now() >= h.deadline {
		h.port.counters.Refused[LateHandshake]++
	}
	h.port.counters.Handshaking--
	h.port.Release(h.peer)
}

// rate lets so many through a second: it holds the instant at which its stock will be full again.
type rate struct{ full int64 }

func (r *rate) take(now int64, each int) bool {
	full := max(r.full, now) + int64(time.Second)/int64(each)
	if full > now+int64(time.Second) {
		return false
	}
	r.full = full
	return true
}

// mayHandshake says whether one more handshake may begin.
func (p *Port) mayHandshake() (Reason, bool) {
	t := p.settings.TLS
	switch {
	case t == nil:
	case t.Handshakes > 0 && p.counters.Handshaking >= t.Handshakes:
		return OverHandshakes, false
	case t.Rate > 0 && !p.rate.take(p.loop.Now(), t.Rate):
		return OverHandshakeRate, false
	}
	return 0, true
}

// turnHandshakes is how many handshakes begin in one turn of the loop, at some 0.2 ms each: those of a flood wait for one another,
// and what is established goes on in between.
const turnHandshakes = 8

// ration counts what begins in a turn.
type ration struct {
	turn int64
	used int
}

func (r *ration) take(turn int64) bool {
	if r.turn != turn {
		r.turn, r.used = turn, 0
	}
	r.used++
	return r.used <= turnHandshakes
}

// Serve shakes hands. The connection is its protocol's from then on.
func (h *tlsConn) Serve(c *loop.Conn) {
	p := h.port
	h.began = true
	if h.tls.Passed != nil && !h.sort(c) {
		return
	}
	for !p.shaking.take(c.Loop().Turned()) {
		c.Loop().Yield()
		if c.Closed() {
			return
		}
	}
	c.Deadline = h.deadline
	state, err := c.SecureServer(h.tls.Config, h.early)
	if err != nil {
		h.fail(c, err)
		return
	}
	c.Deadline = 0
	h.early = nil
	p.counters.Handshakes++
	if state.DidResume {
		p.counters.Resumed++
	}
	if state.NegotiatedProtocol == tls.ChallengeProtocol {
		return // the handshake was the answer: the loop closes the connection
	}
	p.counters.Handshaking--
	next := p.protocol(c, p, Accepted{Peer: h.peer, TLS: h.tls.secured(&state), HTTP2: state.NegotiatedProtocol == "h2"})
	c.Handle(next)
	if c.Readable() {
		next.Serve(c)
		return
	}
	c.Idle(p.after(p.settings.Listener.IdleTimeout))
}

func (t *TLS) secured(s *cryptotls.ConnectionState) *core.TLS {
	secured := &core.TLS{
		Version:    s.Version,
		ServerName: strings.TrimSuffix(strings.ToLower(s.ServerName), "."),
		Names:      t.Names,
		Resumed:    s.DidResume,
	}
	if id, ok := tls.PeerIdentity(*s); ok {
		secured.Identity = &core.Identity{Subject: id.Subject, CommonName: id.CommonName, Fingerprint: id.Fingerprint,
			Names: slices.Concat(lowered(id.DNSNames), id.URIs, id.Emails, id.Addresses)}
		secured.XFCC = xfcc(&id)
		secured.ClientCert = append(base64.StdEncoding.AppendEncode([]byte{':'}, s.PeerCertificates[0].Raw), ':')
	}
	return secured
}

// maxXFCC bounds what a certificate with many names becomes in the head of each request.
const maxXFCC = 4 << 10

// xfcc is an identity as X-Forwarded-Client-Cert has it, made once a connection. Values are quoted, so that none can be taken for
// more elements; what cannot be part of a field is left out.
func xfcc(id *tls.Identity) []byte {
	b := append([]byte("Hash="), id.Fingerprint...)
	add := func(key, value string) {
		for i := range len(value) {
			if value[i] < ' ' || value[i] > '~' {
				return
			}
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
		if len(b)+len(key)+len(quoted)+4 <= maxXFCC {
			b = append(append(append(append(append(b, ';'), key...), `="`...), quoted...), '"')
		}
	}
	add("Subject", id.Subject)
	for _, u := range id.URIs {
		add("URI", u)
	}
	for _, n := range id.DNSNames {
		add("DNS", n)
	}
	return b
}

func lowered(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(n)
	}
	return out
}

// fail counts a handshake that came to nothing, by whose patience ended.
func (h *tlsConn) fail(c *loop.Conn, err error) {
	h.failed = true
	r := BadHandshake
	if c.Loop().Now() >= h.deadline && h.deadline != 0 {
		r = LateHandshake
	}
	h.port.counters.Refused[r]++
	c.Loop().Log().Debug("TLS handshake failed", "peer", h.peer, "reason", r, "error", err)
}
