package compile

import (
	cryptotls "crypto/tls"
	"net/url"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// link is a connection to a service that is asked over gRPC, which all calls share. Any goroutine may use it, but no loop.
type link struct {
	target  string
	options []grpc.DialOption

	mu    sync.Mutex
	conn  *grpc.ClientConn // nil: there is none
	calls int              // that use conn
	ended bool             // it is closed when the last of them is over
}

const (
	linkAnswerBytes = 256 << 10 // of an answer
	linkBackoffMost = 5 * time.Second
	linkSilence     = 30 * time.Second // before a connection with calls under way is asked for a sign of life
	linkPatience    = 5 * time.Second  // for that sign
)

// newLink gives a link that connects when it is first used. It looks at no environment, and its name is resolved for each connection.
func newLink(to *url.URL, encrypted *upstreamTLS) *link {
	secured := insecure.NewCredentials()
	switch {
	case encrypted != nil:
		secured = credentials.NewTLS(encrypted.config)
	case to.Scheme == "grpcs":
		secured = credentials.NewTLS(&cryptotls.Config{MinVersion: cryptotls.VersionTLS12})
	}
	wait := backoff.DefaultConfig
	wait.BaseDelay, wait.MaxDelay = 100*time.Millisecond, linkBackoffMost
	return &link{target: "passthrough:///" + to.Host, options: []grpc.DialOption{
		grpc.WithTransportCredentials(secured), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithUserAgent("sluice"),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: wait, MinConnectTimeout: serviceConnectMost}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: linkSilence, Timeout: linkPatience}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(linkAnswerBytes)),
	}}
}

// use calls f with the connection. A request of a configuration that is not in force any more still gets one.
func (l *link) use(f func(c *grpc.ClientConn) error) error {
	l.mu.Lock()
	if l.conn == nil {
		conn, err := grpc.NewClient(l.target, l.options...)
		if err != nil {
			l.mu.Unlock()
			return err
		}
		l.conn = conn
	}
	l.calls++
	conn := l.conn
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.calls--
		l.settle()
	}()
	return f(conn)
}

// end closes the connection once it is not in use.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.settle()
}

// settle closes the connection if nobody wants it. mu is held.
func (l *link) settle() {
	if l.ended && l.calls == 0 && l.conn != nil {
		_ = l.conn.Close() // which fails only if it is closed
		l.conn = nil
	}
}
