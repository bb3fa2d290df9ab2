package compile

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/http1"
	"github.com/sluice-gateway/sluice/core/http2"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// protocols are those that upstreams are spoken to with, by their names in the configuration. They outlive snapshots: an endpoint
// whose protocol stays keeps its connections.
type protocols map[string]*upstream.Protocol

func newProtocols(workers []*core.Worker) protocols {
	clients := make([]*http2.Client, len(workers))
	for i, w := range workers {
		clients[i] = http2.NewClient(w)
	}
	carry := func(scheme string) upstream.Carry {
		return func(w *core.Worker, c *loop.Conn, m *upstream.Mux) upstream.Carrier {
			set := m.Settings()
			return carrier{clients[w.Loop.Index()].NewConn(c, m, http2.ClientOptions{Scheme: scheme, Streams: set.Streams, Assumed: m.Assumed(), Patience: set.Idle,
				KeepAlive: http2.KeepAlive{Interval: set.KeepAlive, Timeout: set.KeepAliveTimeout}})}
		}
	}
	return protocols{
		"h1":  {Speak: func(w *core.Worker, c *loop.Conn) upstream.Transport { return http1.NewClient(w, c) }},
		"h2":  {Carry: carry("https"), ALPN: alpnOf("h2")},
		"h2c": {Carry: carry("http")},
	}
}

func (p protocols) of(u *config.Upstream) *upstream.Protocol { return p[u.Protocol] }

// carrier is an HTTP/2 connection as an upstream sees it.
type carrier struct{ *http2.ClientConn }

// Open takes an exchange.
func (c carrier) Open() upstream.Transport { return c.ClientConn.Open() }
