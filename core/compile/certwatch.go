package compile

import (
	"context"
	"log/slog"
	"strings"
)

// certWatch renews, on a goroutine of its own, a certificate that is shown to a service or to Redis, as upstreams and listeners do with theirs.
// It lives as long as the TLS that it belongs to is in force.
type certWatch struct {
	background
	of   *upstreamTLS
	name string // whom it is shown to
}

func (w *certWatch) start(log *slog.Logger) {
	log = log.With("service", w.name)
	w.begin(func(ctx context.Context) {
		w.of.store.Watch(ctx, watchEvery, func(changed []string, problems []error) { reportRenewal(log, changed, problems) })
	})
}

// putCertificates follows the files of the certificates that the services of c are shown, and those of no other.
func (r *Registry) putCertificates(c *Compiled) {
	now := map[*upstreamTLS]*certWatch{}
	follow := func(t *upstreamTLS, name string) {
		if t == nil || t.store == nil {
			return
		}
		if now[t] = r.certificates[t]; now[t] == nil {
			now[t] = &certWatch{of: t, name: name}
		}
	}
	for key, s := range c.services {
		name, _, _ := strings.Cut(key, " ")
		follow(s.encrypted, name)
	}
	if c.sharing != nil {
		follow(c.sharing.tls, "redis")
	}
	replace(&r.closing, r.certificates, now, func(w *certWatch) { w.start(r.log) })
	r.certificates = now
}
