// Package probe asks endpoints on purpose how they are. A Question is one request of a kind, by HTTP, TCP or gRPC; a Checker asks
// the endpoints of one upstream again and again, by a health.Schedule, and keeps what follows as a health.Check for each.
//
// Probes run on goroutines of their own, beside the loops, with the standard library's HTTP client: they are few, and share neither
// a connection nor a parser with requests. Each has a connection of its own, made anew, so that it finds out what a new client
// would. An endpoint is not trusted: a probe is bounded in time by its context, and in memory by MaxAnswer for the head and
// the body each.
package probe

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/sluice-gateway/sluice/lb"
)

// MaxAnswer bounds what is read of an answer's head, and of its body.
const MaxAnswer = 64 << 10

// Endpoint is whom to ask. Its Load is its identity: an address that comes back later has another.
type Endpoint struct {
	Load    *lb.Load
	Address string // host:port with the address resolved, or unix:/path
	Host    string // whom a request is for, unless the question says
	Name    string // what its certificate must be for, unless TLS says
	Off     bool   // nobody asks it
	Serves  bool   // it gets requests already: it is not taken for unhealthy before its first result
}

// Question is what is asked, and how; exactly one of HTTP, TCP and GRPC is set. It is immutable and may be used by many probes.
type Question struct {
	HTTP  *HTTP
	TCP   *TCP
	GRPC  *GRPC
	HTTP2 bool              // HTTP is asked by HTTP/2, as gRPC always is
	TLS   *cryptotls.Config // nil: not encrypted. What it says of protocols and of sessions to resume is not heeded
	Proxy int               // version of the PROXY header, which says that the connection is nobody's but the gateway's; 0: none
	Port  uint16            // instead of the endpoint's; 0: that
}

// Kind is what became of a probe.
type Kind uint8

const (
	Passed  Kind = iota
	Wrong        // answered, but not as it should be
	Network      // no connection, none that is trusted, or it broke
	Timeout
	// Kinds is their number.
	Kinds = iota
)

var kindNames = [Kinds]string{"success", "failure", "network_failure", "timeout"}

func (k Kind) String() string { return kindNames[k] }

// Failure is why a probe did not pass. Its text is short; it may hold what the endpoint sent.
type Failure struct {
	Kind Kind // not Passed
	Text string
}

const maxReason = 160

func wrong(format string, args ...any) *Failure {
	return &Failure{Wrong, clip(fmt.Sprintf(format, args...))}
}

// failed is what err means, which came in a stage of a probe.
func failed(ctx context.Context, stage string, err error) *Failure {
	if ctx.Err() != nil {
		return &Failure{Timeout, "timeout: " + stage}
	}
	text := ""
	var errno syscall.Errno
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "closed by the endpoint"
	case errors.As(err, &errno):
		text = errno.Error()
	default:
		text = err.Error()
	}
	return &Failure{Network, clip(stage + ": " + text)}
}

// clip bounds a reason and keeps it on one line.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Ask asks an endpoint; nil: it passed. It returns soon after ctx has ended.
func (q *Question) Ask(ctx context.Context, e *Endpoint) *Failure {
	raw, failure := q.connect(ctx, e)
	if failure != nil {
		return failure
	}
	defer raw.Close() //nolint:errcheck // what was asked has been answered, or will not be
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	if q.Proxy != 0 {
		if _, err := io.WriteString(raw, proxyHeader(q.Proxy)); err != nil {
			return failed(ctx, "send", err)
		}
	}
	conn := raw
	if q.TLS != nil {
		secured := cryptotls.Client(raw, q.tlsFor(e))
		if err := secured.HandshakeContext(ctx); err != nil {
			return failed(ctx, "tls", err)
		}
		conn = secured
	}
	switch {
	case q.HTTP != nil:
		return q.askHTTP(ctx, conn, e)
	case q.GRPC != nil:
		return q.askGRPC(ctx, conn, e)
	}
	return q.TCP.ask(ctx, conn)
}

func (q *Question) connect(ctx context.Context, e *Endpoint) (net.Conn, *Failure) {
	network, address := "tcp", e.Address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	} else if q.Port != 0 {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, failed(ctx, "connect", err)
		}
		address = net.JoinHostPort(host, strconv.Itoa(int(q.Port)))
	}
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
	if err != nil {
		return nil, failed(ctx, "connect", err)
	}
	return conn, nil
}

// tlsFor is q.TLS for one probe. Sessions are not resumed, so that each finds out what the endpoint's certificate is now.
func (q *Question) tlsFor(e *Endpoint) *cryptotls.Config {
	c := q.TLS.Clone()
	if c.ServerName == "" {
		c.ServerName = e.Name
	}
	c.ClientSessionCache = nil
	switch {
	case q.TCP != nil:
		c.NextProtos = nil
	case q.GRPC != nil || q.HTTP2:
		c.NextProtos = []string{"h2"}
	default:
		c.NextProtos = []string{"http/1.1"}
	}
	return c
}

// proxyHeader tells that the connection is made by the gateway for itself (proxy-protocol.txt, 2.1 and 2.2).
func proxyHeader(version int) string {
	if version == 1 {
		return "PROXY UNKNOWN\r\n"
	}
	return "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
}
