package compile

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/concurrency"
	"github.com/sluice-gateway/sluice/core/policy/ratelimit"
	"github.com/sluice-gateway/sluice/limits"
)

// Limiter is a policy of limits in a configuration: one of Rate and Flight. Its buckets outlive configurations under its name; one
// that is written in a route has that of the route and its place there.
type Limiter struct {
	Name   string
	Rate   *ratelimit.Policy
	Flight *concurrency.Policy

	spec any // as it is written, but for places
	step core.Step
	kept []ratelimit.Kept // of the process before, until it is in force
}

// rateLimit makes the step of a rate_limit, or takes that of the configuration in force if nothing of it has changed.
func (r *Registry) rateLimit(c *Compiled, name string, spec *config.RateLimit) (core.Step, error) {
	type written struct {
		config.RateLimit
		sharing int // by whose way the cluster is asked
	}
	w := written{RateLimit: bareRateLimit(spec)}
	if spec.Mode != "local" {
		w.sharing = c.sharing.serial
	}
	return r.limiter(c, name, w, func(l *Limiter) (core.Step, error) {
		s, err := r.rateLimitSpec(c, name, spec)
		if err != nil {
			return core.Step{}, err
		}
		p := ratelimit.New(s)
		l.Rate = p
		return core.Step{Request: p, Response: p, End: p}, p.Check()
	})
}

// concurrency makes the step of a concurrency, likewise.
func (r *Registry) concurrency(c *Compiled, name string, spec *config.Concurrency) (core.Step, error) {
	return r.limiter(c, name, *spec, func(l *Limiter) (core.Step, error) {
		p := concurrency.New(concurrency.Spec{
			Limit:    uint32(spec.Limit),
			Hold:     spec.Hold,
			Keys:     core.NewKeyRecipe(r.seed, keyParts(spec.Key), spec.IPv6Prefix),
			Capacity: spec.Capacity,
			Missing:  concurrency.Missing(missingOf(spec.OnMissing)),
			DryRun:   spec.DryRun,
			Refusal:  refusalOf(&spec.Refusal, "too_many_concurrent"),
			Err:      r.refusedBy(core.Error{Status: spec.Status, Reason: "too_many_concurrent", Detail: fmt.Sprintf("policy %q", name)}),
		})
		l.Flight = p
		return core.Step{Request: p, End: p}, p.Check()
	})
}

func (r *Registry) limiter(c *Compiled, name string, spec any, make func(l *Limiter) (core.Step, error)) (s core.Step, err error) {
	l := r.limiters[name]
	if l == nil || !reflect.DeepEqual(l.spec, spec) {
		l = &Limiter{Name: name, spec: spec}
		if l.step, err = make(l); err != nil {
			return core.Step{}, err
		}
	}
	c.Limiters = append(c.Limiters, l)
	return l.step, nil
}

// bareRateLimit is spec without the places where it is written.
func bareRateLimit(spec *config.RateLimit) config.RateLimit {
	bare := *spec
	bare.Levels = append([]config.LimitLevel(nil), spec.Levels...)
	for i := range bare.Levels {
		l := &bare.Levels[i]
		l.Pos, l.Tiers, l.Consumers = config.Pos{}, bareRates(l.Tiers), bareRates(l.Consumers)
	}
	return bare
}

func bareRates(rates []config.OwnRate) []config.OwnRate {
	bare := append([]config.OwnRate(nil), rates...)
	for i := range bare {
		bare[i].Pos = config.Pos{}
	}
	return bare
}

func (r *Registry) rateLimitSpec(c *Compiled, name string, spec *config.RateLimit) (ratelimit.Spec, error) {
	s := ratelimit.Spec{
		TierClaim:     spec.TierClaim,
		Mode:          modeOf(spec.Mode),
		Away:          awayOf(spec.OnError),
		Capacity:      spec.Capacity,
		Cost:          uint32(spec.Cost),
		Missing:       ratelimit.Missing(missingOf(spec.OnMissing)),
		HideHeaders:   spec.HideHeaders,
		LegacyHeaders: spec.LegacyHeaders,
		Share:         spec.Share / 100,
		DryRun:        spec.DryRun,
		Refusal:       refusalOf(&spec.Refusal, "rate_limited"),
	}
	title := name
	if strings.ContainsRune(name, '#') { // a route's name is not for clients
		title = "default"
	}
	if a := spec.CostAfter; a != nil {
		s.After = &ratelimit.After{Header: a.Header, Max: uint32(a.Max), Remove: a.Remove}
	}
	for i := range spec.Levels {
		l := &spec.Levels[i]
		keys := core.NewKeyRecipe(r.keySeed(c, spec), keyParts(l.Key), spec.IPv6Prefix)
		level := ratelimit.Level{
			Name:   keys.String(),
			Keys:   keys,
			Leased: fewKeys(l.Key),
			Err: r.refusedBy(core.Error{Status: spec.Status, Reason: "rate_limited",
				Detail: fmt.Sprintf("policy %q, level %s", name, keys)}),
		}
		levelTitle := title
		if len(spec.Levels) > 1 {
			levelTitle += "-" + l.Scope
		}
		level.Windows, level.Titles = windowsOf(spec, l.Windows, l.Burst, levelTitle)
		own := func(rates []config.OwnRate) (out []ratelimit.Rate) {
			for _, o := range rates {
				rate := ratelimit.Rate{Name: o.Name}
				rate.Windows, rate.Titles = windowsOf(spec, o.Windows, o.Burst, levelTitle)
				out = append(out, rate)
			}
			return out
		}
		level.Tiers, level.Consumers = own(l.Tiers), own(l.Consumers)
		s.Levels = append(s.Levels, level)
	}
	if s.Mode == ratelimit.Local {
		return s, nil
	}
	s.Cluster = c.sharing.client
	return s, shareRates(name, &s)
}

// windowsOf gives the windows of rates, and what clients call them.
func windowsOf(spec *config.RateLimit, rates []config.Rate, burst int, title string) (windows []limits.Window, titles []string) {
	for j, w := range rates {
		window := limits.Window{Algorithm: algorithm(spec.Algorithm), Limit: uint32(w.Limit), Period: w.Period, MaxWait: spec.MaxWait}
		if j == 0 {
			window.Burst = uint32(burst)
		}
		windows = append(windows, window)
		windowTitle := title
		if _, unit, _ := strings.Cut(w.String(), "/"); len(rates) > 1 {
			windowTitle += "-" + unit
		}
		titles = append(titles, windowTitle)
	}
	return windows, titles
}

// fewKeys says that many requests take of few keys.
func fewKeys(key []config.KeyPart) bool {
	for _, p := range key {
		if p.Kind != "global" && p.Kind != "route" && p.Kind != "method" && p.Kind != "upstream" {
			return false
		}
	}
	return true
}

func algorithm(name string) limits.Algorithm {
	for a := limits.TokenBucket; a <= limits.LeakyBucket; a++ {
		if a.String() == name {
			return a
		}
	}
	panic("BUG: an algorithm that the grammar does not know")
}

func missingOf(word string) int {
	switch word {
	case "allow":
		return 1
	case "deny":
		return 2
	}
	return 0
}

func keyParts(in []config.KeyPart) (out []core.KeyPart) {
	for _, p := range in {
		kind, known := core.ParseKeyKind(p.Kind)
		if !known {
			panic("BUG: a part of a key that the grammar does not know")
		}
		out = append(out, core.KeyPart{Kind: kind, Name: p.Name})
	}
	return out
}

func refusalOf(spec *config.Refusal, reason string) *core.Refusal {
	var lines [][2]string
	for _, h := range spec.Headers {
		lines = append(lines, [2]string{h.Name, h.Value.Reveal()})
	}
	return core.NewRefusal(spec.Status, reason, spec.Body.Reveal(), lines)
}

// refusedBy gives the one error for a level's refusals, the same over reloads: what is counted by errors stays small.
func (r *Registry) refusedBy(e core.Error) *core.Error {
	known := r.refusals[e]
	if known == nil {
		known = &e
		r.refusals[e] = known
	}
	return known
}

// putLimiters puts those of c in force. Their tables are made here, and cannot fail since they have been checked.
func (r *Registry) putLimiters(c *Compiled) {
	next := make(map[string]*Limiter, len(c.Limiters))
	used := map[*core.Error]bool{}
	for _, l := range c.Limiters {
		before := r.limiters[l.Name]
		if before != l {
			if err := l.start(r, before); err != nil {
				panic("BUG: " + err.Error())
			}
			l.resume(r)
		}
		next[l.Name] = l
		switch {
		case l.Rate != nil:
			for i := range l.Rate.Levels() {
				used[l.Rate.Level(i).Err] = true
			}
		default:
			used[l.Flight.Err()] = true
		}
	}
	for name, l := range r.limiters {
		if l != next[name] && l.Flight != nil {
			l.Flight.Retire()
		}
	}
	r.limiters = next
	for e, known := range r.refusals {
		if !used[known] {
			delete(r.refusals, e)
		}
	}
}

// start makes l ready, with what before has counted if it is of the same kind.
func (l *Limiter) start(r *Registry, before *Limiter) error {
	if before == nil {
		before = &Limiter{}
	}
	if l.Rate != nil {
		return l.Rate.Start(r.workers, before.Rate, r.Wall())
	}
	return l.Flight.Start(r.workers, before.Flight, r.Wall())
}

// Wall is the time that limits go by: that of the loops, in nanoseconds of Unix time. It may be asked for anywhere.
func (r *Registry) Wall() int64 {
	if len(r.workers) == 0 {
		return time.Now().UnixNano()
	}
	l := r.workers[0].Loop
	return l.WallAt(l.Clock())
}

// Memory says what the tables of each limiter of a configuration take.
func (c *Compiled) Memory() (lines []string) {
	add := func(l *Limiter, level string, bytes int) {
		lines = append(lines, fmt.Sprintf("policy %q, level %s: %d KiB of memory", l.Name, level, (bytes+1023)/1024))
	}
	for _, l := range c.Limiters {
		if l.Rate == nil {
			add(l, l.Flight.Keys().String(), l.Flight.Bytes())
			continue
		}
		for i := range l.Rate.Levels() {
			add(l, l.Rate.Level(i).Name, l.Rate.Bytes(i))
		}
	}
	return lines
}
