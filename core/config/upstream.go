package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

const (
	upstreamKeys   = "endpoints balance pool timeouts resolve replay_bytes tls protocol http2 proxy_protocol health outlier breaker concurrency retry hedge socket authorize"
	maxEndpoints   = 10_000 // of one upstream, and of each file
	maxReplayBytes = 64 << 10
	maxTier        = 127 // priority of an endpoint
)

func defaultUpstream(name string, pos Pos) Upstream {
	return Upstream{
		Name:        name,
		Pos:         pos,
		Balance:     defaultBalance(),
		Pool:        Pool{MaxPending: 1024, QueueTimeout: time.Second, IdlePerLoop: 256, IdleTimeout: time.Minute},
		Timeouts:    UpstreamTimeouts{Connect: 5 * time.Second, TLS: 5 * time.Second, Header: 30 * time.Second, Idle: time.Minute, Tunnel: 5 * time.Minute},
		Resolve:     defaultResolve(),
		ReplayBytes: 16 << 10,
		Protocol:    "h1",
		HTTP2:       UpstreamHTTP2{Streams: 100, KeepAlive: 30 * time.Second, KeepAliveTimeout: 10 * time.Second},
		Retry:       builtInRetry(),
		RetryBudget: RetryBudget{Percent: 20, Floor: 3},
	}
}

// upstream reads one entry of `upstreams`: a map, or its endpoints alone.
func (d *decoder) upstream(name string, k, v ast.Node) {
	d.name("an upstream", name, k)
	if first, twice := d.upstreams[name]; twice {
		d.problem(k, "", "upstream %q is given twice; first at %s", name, d.cfg.Upstreams[first].Pos)
		return
	}
	u := defaultUpstream(name, d.at(k))
	switch n := d.resolve(v).(type) {
	case nil:
	case *ast.SequenceNode, *ast.StringNode:
		d.endpoints(name, n, &u)
	case *ast.MappingNode, *ast.MappingValueNode:
		d.upstreamMap(name, k, n, &u)
	default:
		d.wrongType(name, n, "a list of endpoints or a map")
	}
	d.upstreams[name] = len(d.cfg.Upstreams)
	d.cfg.Upstreams = append(d.cfg.Upstreams, u)
}

func (d *decoder) upstreamMap(name string, k, v ast.Node, u *Upstream) {
	hasEndpoints := false
	var protocol, http2 ast.Node
	ok := d.mapping(name, v, upstreamKeys, func(key string, k, v ast.Node) bool {
		switch key {
		case "endpoints":
			hasEndpoints = true
			d.endpoints(key, v, u)
		case "health":
			d.health(key, v, u)
		case "proxy_protocol":
			d.word(key, v, "v1 v2", &u.Proxy)
		case "balance":
			d.balance(key, v, &u.Balance)
		case "pool":
			d.pool(key, v, &u.Pool)
		case "timeouts":
			d.upstreamTimeouts(key, v, &u.Timeouts)
		case "resolve":
			d.resolving(key, v, &u.Resolve)
		case "replay_bytes":
			d.sizeInt(key, v, 0, maxReplayBytes, &u.ReplayBytes)
		case "tls":
			u.TLS = d.upstreamTLS(key, v)
		case "socket":
			d.upstreamSocket(key, v, &u.Socket)
		case "protocol":
			protocol = v
			d.word(key, v, "h1 h2 h2c", &u.Protocol)
		case "retry":
			d.retry(key, v, &u.Retry, &u.RetryBudget)
		case "hedge":
			d.hedge(key, v, &u.Hedge)
		case "http2":
			http2 = v
			d.upstreamHTTP2(key, v, &u.HTTP2)
		case "outlier":
			u.Outlier = d.outlier(key, v)
		case "breaker":
			u.Breaker = d.breaker(key, k, v)
		case "authorize":
			u.Authorize = d.authorize(key, v)
		case "concurrency":
			u.Adaptive = d.adaptive(key, v)
		default:
			return false
		}
		return true
	})
	if ok && !hasEndpoints {
		d.problem(k, "add endpoints: [127.0.0.1:8080]", "upstream %q has no %q", name, "endpoints")
	}
	switch {
	case u.Protocol == "h2" && u.TLS == nil:
		d.problem(protocol, "write protocol: h2c, or add tls: true", "%q needs %q", "protocol: h2", "tls")
	case u.Protocol == "h2c" && u.TLS != nil:
		d.problem(protocol, "write protocol: h2", "%q has no %q", "protocol: h2c", "tls")
	case u.Protocol != "h1" && u.Proxy != "":
		d.problem(protocol, "drop one of the two", "an HTTP/2 connection is shared by many clients, and %q names one", "proxy_protocol")
	case u.Protocol == "h1" && http2 != nil:
		d.problem(http2, "add protocol: h2 or h2c", "%q is of no use with %q", "http2", "protocol: h1")
	}
}

func (d *decoder) upstreamHTTP2(key string, n ast.Node, h *UpstreamHTTP2) {
	d.mapping(key, n, "streams keepalive keepalive_timeout", func(key string, _, v ast.Node) bool {
		switch key {
		case "streams":
			d.integer(key, v, 1, 1000, &h.Streams)
		case "keepalive":
			d.optionalDuration(key, v, &h.KeepAlive)
		case "keepalive_timeout":
			d.duration(key, v, time.Millisecond, &h.KeepAliveTimeout)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) pool(key string, n ast.Node, p *Pool) {
	const valid = "max_connections max_pending max_requests max_retries queue_timeout idle_per_loop idle_timeout requests_per_connection"
	d.mapping(key, n, valid, func(key string, _, v ast.Node) bool {
		switch key {
		case "max_connections":
			d.integer(key, v, 0, maxCount, &p.MaxConnections)
		case "max_pending":
			d.integer(key, v, 0, maxCount, &p.MaxPending)
		case "max_requests":
			d.integer(key, v, 0, maxCount, &p.MaxRequests)
		case "max_retries":
			d.integer(key, v, 0, maxCount, &p.MaxRetries)
		case "queue_timeout":
			d.duration(key, v, 0, &p.QueueTimeout)
		case "idle_per_loop":
			d.integer(key, v, 0, 65536, &p.IdlePerLoop)
		case "idle_timeout":
			d.duration(key, v, time.Millisecond, &p.IdleTimeout)
		case "requests_per_connection":
			d.integer(key, v, 0, 1_000_000_000, &p.RequestsPerConnection)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) upstreamTimeouts(key string, n ast.Node, t *UpstreamTimeouts) {
	d.mapping(key, n, "connect tls header per_try idle total tunnel tunnel_life", func(key string, _, v ast.Node) bool {
		switch key {
		case "connect":
			d.duration(key, v, time.Millisecond, &t.Connect)
		case "tls":
			d.duration(key, v, time.Millisecond, &t.TLS)
		case "header":
			d.duration(key, v, time.Millisecond, &t.Header)
		case "per_try":
			t.perTryAt = d.at(v)
			d.optionalDuration(key, v, &t.PerTry)
		case "idle":
			d.duration(key, v, time.Millisecond, &t.Idle)
		case "total":
			d.optionalDuration(key, v, &t.Total)
		case "tunnel":
			d.duration(key, v, time.Millisecond, &t.Tunnel)
		case "tunnel_life":
			d.optionalDuration(key, v, &t.TunnelLife)
		default:
			return false
		}
		return true
	})
}
