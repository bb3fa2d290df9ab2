package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// OIDCSessions says where sessions are.
type OIDCSessions struct {
	Most  int      // 100000, 1..1000000; of those in redis this node keeps as many copies
	Store string   // memory, or redis, by which nodes share them; memory
	Keys  []Secret // by reference, the same on all nodes; 1..4 with redis: the first is for what is new, all are for what there is
	// Grace is how long sessions that are known here go on while Redis is away, 1s..24h; with on_error local 5m, with deny 0: not at all.
	Grace time.Duration
}

const (
	sessionKeys     = "most store key on_error grace"
	maxSessionKeys  = 4
	minSessionKey   = 32
	maxSessionKey   = 1024
	sessionGrace    = 5 * time.Minute
	maxSessionGrace = 24 * time.Hour
)

func (d *decoder) oidcSessions(key string, n ast.Node, s *OIDCSessions) {
	given := map[string]Pos{}
	before := d.errors
	onError := "local"
	ok := d.mapping(key, n, sessionKeys, func(key string, k, v ast.Node) bool {
		given[key] = d.at(k)
		switch key {
		case "most":
			d.integer(key, v, 1, maxSessions, &s.Most)
		case "store":
			d.word(key, v, "memory redis", &s.Store)
		case "key":
			d.list(key, v, func(v ast.Node) {
				var one Secret
				if d.room(key, v, len(s.Keys)) && d.referred(key, v, minSessionKey, maxSessionKey, &one) {
					s.Keys = append(s.Keys, one)
				}
			})
		case "on_error":
			d.word(key, v, "local deny", &onError)
		case "grace":
			d.durationUpTo(key, v, time.Second, maxSessionGrace, &s.Grace)
		default:
			return false
		}
		return true
	})
	if !ok || d.errors != before {
		return
	}
	for _, of := range [...]string{"key", "on_error", "grace"} {
		if at, is := given[of]; is && s.Store != "redis" {
			d.problemAt(at, "add store: redis", "%q has no meaning for sessions in memory", of)
		}
	}
	_, grace := given["grace"]
	switch {
	case s.Store != "redis":
	case len(s.Keys) == 0:
		d.problem(n, "key: env:NAME, 32 random bytes or more, the same on all nodes", "%q has no %q to seal what is in Redis", key, "key")
	case len(s.Keys) > maxSessionKeys:
		d.problemAt(given["key"], "", "%q has more than %d entries", "key", maxSessionKeys)
	case grace && onError == "deny":
		d.problemAt(given["grace"], "", "%q has no meaning with on_error deny", "grace")
	case !grace && onError == "local":
		s.Grace = sessionGrace
	}
}

// checkStores refuses sessions that nodes are to share without a place for it.
func (l *loader) checkStores() {
	for i := range l.cfg.Routes {
		l.policies(&l.cfg.Routes[i], func(u *Use, p *Policy) {
			if p.sharesSessions() && l.cfg.Cluster == nil {
				l.problemAt(u.Pos, "add cluster: { redis: { addresses: ... } }", "sessions with store redis have nobody to share with: there is no %q", "cluster")
			}
		})
	}
}

func (p *Policy) sharesSessions() bool {
	for one := range p.logins {
		if one.OIDC.Sessions.Store == "redis" {
			return true
		}
	}
	return false
}

func (w *dumper) oidcSessions(s *OIDCSessions) {
	if s.Store != "redis" {
		w.line("sessions: { most: %d }", s.Most)
		return
	}
	w.block("sessions:", func() {
		w.line("store: redis")
		w.line("most: %d", s.Most)
		keys := make([]string, len(s.Keys))
		for i := range s.Keys {
			keys[i] = s.Keys[i].String()
		}
		w.line("key: %s", quoteList(keys))
		if s.Grace == 0 {
			w.line("on_error: deny")
			return
		}
		w.line("on_error: local")
		w.line("grace: %s", formatDuration(s.Grace))
	})
}
