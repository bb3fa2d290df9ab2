package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Cluster is what this node shares with others.
type Cluster struct {
	Pos   Pos
	Redis Redis
	// Secret is the same on all nodes. Keys of limits are made with it, so that no client can foresee them. Without one the password of
	// Redis stands for it.
	Secret Secret
}

// Redis is where the cluster's buckets are.
type Redis struct {
	Addresses []string // host:port, or unix:/path of a single one; 1..64
	Username  string
	Password  Secret        // by reference
	Database  int           // 0..65535; 0
	TLS       *UpstreamTLS  // nil: not encrypted
	Timeout   time.Duration // that a request waits at most; 50ms, 1ms..1s
	Mode      string        // single, sentinel or cluster; single
	Sentinel  Sentinel
}

// Sentinel is what the addresses are in mode sentinel.
type Sentinel struct {
	Master   string // name of the one that is watched
	Username string // of the sentinels themselves
	Password Secret
}

const (
	clusterKeys      = "redis secret"
	redisKeys        = "addresses username password database tls timeout mode sentinel"
	maxRedis         = 64
	maxDatabase      = 65535
	maxRedisTimeout  = time.Second
	minClusterSecret = 32
	maxClusterSecret = 1024
	maxRedisPassword = 4096
)

// cluster reads the key of that name.
func (d *decoder) cluster(key string, n ast.Node) {
	c := &Cluster{Pos: d.at(n), Redis: Redis{Timeout: 50 * time.Millisecond, Mode: "single"}}
	before := d.errors
	given := false
	ok := d.mapping(key, n, clusterKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "redis":
			given = true
			d.redis(key, v, &c.Redis)
		case "secret":
			d.referred(key, v, minClusterSecret, maxClusterSecret, &c.Secret)
		default:
			return false
		}
		return true
	})
	d.cfg.Cluster = c
	switch {
	case !ok || d.errors != before:
	case !given:
		d.problem(n, "redis: { addresses: [10.0.0.1:6379] }", "%q has no %q", key, "redis")
	case c.Secret.Reveal() == "" && c.Redis.Password.Reveal() == "":
		d.warnAt(c.Pos, "secret: env:NAME, the same on all nodes", "%q has no %q: clients could foresee the keys of limits", key, "secret")
	}
}

// redis reads addresses, or a map.
func (d *decoder) redis(key string, n ast.Node, r *Redis) {
	given := map[string]Pos{}
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		d.redisAddresses(key, n, r)
		if len(r.Addresses) > 1 {
			d.problem(n, "write redis: { addresses: [...], mode: cluster }", "several addresses are of a cluster or of sentinels, which %q does not say", key)
		}
		return
	}
	before := d.errors
	ok := d.mapping(key, n, redisKeys, func(key string, k, v ast.Node) bool {
		given[key] = d.at(k)
		switch key {
		case "addresses":
			d.redisAddresses(key, v, r)
		case "username":
			d.redisName(key, v, &r.Username)
		case "password":
			d.referred(key, v, 1, maxRedisPassword, &r.Password)
		case "database":
			d.integer(key, v, 0, maxDatabase, &r.Database)
		case "tls":
			r.TLS = d.upstreamTLS(key, v)
		case "timeout":
			d.durationUpTo(key, v, time.Millisecond, maxRedisTimeout, &r.Timeout)
		case "mode":
			d.word(key, v, "single sentinel cluster", &r.Mode)
		case "sentinel":
			d.sentinel(key, v, &r.Sentinel)
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before {
		d.redisWhole(n, r, given)
	}
}

func (d *decoder) redisAddresses(key string, n ast.Node, r *Redis) {
	d.list(key, n, func(v ast.Node) {
		var a string
		switch {
		case !d.endpointAddress(key, v, &a):
		case len(r.Addresses) == maxRedis:
			d.problem(v, "", "%q has more than %d entries", key, maxRedis)
		default:
			r.Addresses = append(r.Addresses, a)
		}
	})
}

func (d *decoder) redisName(key string, n ast.Node, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	if s == "" || len(s) > maxUserBytes || hasControl(s) {
		d.problem(n, "", "%q cannot be %q", key, clip(s))
		return
	}
	*to = s
}

func (d *decoder) sentinel(key string, n ast.Node, s *Sentinel) {
	before := d.errors
	ok := d.mapping(key, n, "master username password", func(key string, _, v ast.Node) bool {
		switch key {
		case "master":
			d.redisName(key, v, &s.Master)
		case "username":
			d.redisName(key, v, &s.Username)
		case "password":
			d.referred(key, v, 1, maxRedisPassword, &s.Password)
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before && s.Master == "" {
		d.problem(n, "master: NAME", "%q does not say which master is watched", key)
	}
}

// redisWhole judges what only the whole tells.
func (d *decoder) redisWhole(n ast.Node, r *Redis, given map[string]Pos) {
	_, watched := given["sentinel"]
	_, said := given["mode"]
	if watched && !said {
		r.Mode = "sentinel"
	}
	sockets := false
	for _, a := range r.Addresses {
		sockets = sockets || strings.HasPrefix(a, "unix:")
	}
	switch {
	case len(r.Addresses) == 0:
		d.problem(n, "addresses: [10.0.0.1:6379]", "%q has no %q", "redis", "addresses")
	case watched && r.Mode != "sentinel":
		d.problemAt(given["sentinel"], "", "%q has no meaning in mode %s", "sentinel", r.Mode)
	case !watched && r.Mode == "sentinel":
		d.problemAt(given["mode"], "sentinel: { master: NAME }", "mode sentinel has no %q", "sentinel")
	case r.Mode == "single" && len(r.Addresses) > 1:
		d.problemAt(given["addresses"], "mode: cluster, or sentinel: { master: NAME }", "a single Redis has one address")
	case r.Mode == "cluster" && r.Database != 0:
		d.problemAt(given["database"], "", "a cluster has no database but 0")
	case r.Mode != "single" && sockets:
		d.problemAt(given["addresses"], "", "%s has no sockets of this host", r.Mode)
	case r.Username != "" && r.Password.Reveal() == "":
		d.problemAt(given["username"], "password: env:NAME", "%q has no %q", "username", "password")
	case sockets && r.TLS != nil:
		d.problemAt(given["tls"], "", "a socket of this host is not encrypted")
	}
}

func (w *dumper) cluster(c *Cluster) {
	if c.Secret.Reveal() != "" {
		w.line("secret: %s", quote(c.Secret.String()))
	}
	r := &c.Redis
	w.block("redis:", func() {
		w.line("addresses: %s", quoteList(r.Addresses))
		if r.Username != "" {
			w.line("username: %s", quote(r.Username))
		}
		if r.Password.Reveal() != "" {
			w.line("password: %s", quote(r.Password.String()))
		}
		w.line("database: %d", r.Database)
		if r.TLS != nil {
			w.block("tls:", func() { w.upstreamTLS(r.TLS) })
		}
		w.line("timeout: %s", formatDuration(r.Timeout))
		w.line("mode: %s", r.Mode)
		if s := &r.Sentinel; s.Master != "" {
			w.block("sentinel:", func() {
				w.line("master: %s", quote(s.Master))
				if s.Username != "" {
					w.line("username: %s", quote(s.Username))
				}
				if s.Password.Reveal() != "" {
					w.line("password: %s", quote(s.Password.String()))
				}
			})
		}
	})
}
