package compile

import (
	"github.com/sluice-gateway/sluice/core/policy/ratelimit"
	"github.com/sluice-gateway/sluice/limits"
)

// Seed is what the keys of this process's limits are made with. It is a secret.
func (r *Registry) Seed() limits.Seed { return r.seed }

// UseSeed makes it the one of the process before, so that its buckets can be found. It is called before the first Compile.
func (r *Registry) UseSeed(seed limits.Seed) { r.seed = seed }

// Keep gives a rate_limit what the process before has counted, for when it is put in force: then there is a table to put it into.
func (l *Limiter) Keep(kept []ratelimit.Kept) { l.kept = kept }

// resume takes over what was kept. What is damaged is left out, with a warning.
func (l *Limiter) resume(r *Registry) {
	for _, k := range l.kept {
		if _, err := l.Rate.Import(k, r.Wall()); err != nil {
			r.log.Warn("state of a limit is ignored", "policy", l.Name, "level", k.Level, "error", err)
		}
	}
	l.kept = nil
}
