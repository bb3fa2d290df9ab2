package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/policy/ratelimit"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// topKeys is how many of the keys that are refused most are shown of a policy.
const topKeys = 20

const helpLimitRequests = "Requests by policy and level of limits: allowed took of it, refused were refused by it, passed were over it but not refused."

// collectLimits tells what loop i has counted.
func collectLimits(all []*compile.Limiter, i int, sink *observe.Sink) {
	for _, l := range all {
		count := func(level, result string, n uint64) {
			sink.Counter("sluice_limit_requests_total", helpLimitRequests, float64(n), "policy", l.Name, "level", level, "result", result)
		}
		each := func(level string, c ratelimit.Counts) {
			count(level, "allowed", c.Allowed)
			count(level, "refused", c.Refused)
			count(level, "passed", c.Passed)
		}
		if l.Rate == nil {
			each(l.Flight.Keys().String(), ratelimit.Counts(l.Flight.Report(i)))
			continue
		}
		for n := range l.Rate.Levels() {
			r, level := l.Rate.Report(i, n), l.Rate.Level(n)
			each(level.Name, r.Counts)
			if level.Leased {
				sink.Counter("sluice_limit_lease_misses_total", "Requests for which a loop had to ask the node's bucket.", float64(r.Leases.Misses),
					"policy", l.Name, "level", level.Name)
			}
		}
		sink.Counter("sluice_limit_delayed_total", "Requests that a leaky bucket made wait.", float64(l.Rate.Delayed(i)), "policy", l.Name)
	}
}

// collectTables tells of the tables, which all loops share.
func collectTables(all []*compile.Limiter, sink *observe.Sink) {
	for _, l := range all {
		each := func(level string, s limits.Stats) {
			labels := []string{"policy", l.Name, "level", level}
			sink.Gauge("sluice_limit_keys", "Slots of a limit's table that were used.", float64(s.Used), labels...)
			sink.Gauge("sluice_limit_slots", "Slots of a limit's table.", float64(s.Slots), labels...)
			sink.Counter("sluice_limit_evictions_total", "Keys forgotten, for want of room, although something of theirs was taken.", float64(s.Evicted), labels...)
			sink.Counter("sluice_limit_untracked_total", "Requests admitted without being counted, under a storm of new keys.", float64(s.Untracked), labels...)
		}
		if l.Rate == nil {
			each(l.Flight.Keys().String(), l.Flight.Stats())
			continue
		}
		for n := range l.Rate.Levels() {
			level := l.Rate.Level(n).Name
			each(level, l.Rate.Stats(n))
			collectShared(l, n, sink)
		}
	}
}

// collectShared tells of level n's part of the cluster's tokens.
func collectShared(l *compile.Limiter, n int, sink *observe.Sink) {
	c, away, ok := l.Rate.Shared(n)
	if !ok {
		return
	}
	labels := []string{"policy", l.Name, "level", l.Rate.Level(n).Name}
	sink.Counter("sluice_limit_cluster_asks_total", "Times that a node asked the cluster for tokens.", float64(c.Asks), labels...)
	sink.Counter("sluice_limit_cluster_granted_total", "Tokens that the cluster granted.", float64(c.Granted), labels...)
	sink.Counter("sluice_limit_cluster_failures_total", "Questions to the cluster that were not answered.", float64(c.Failures+c.Unasked), labels...)
	sink.Counter("sluice_limit_cluster_alone_total", "Requests that were decided on while the cluster was away.", float64(c.Alone), labels...)
	sink.Gauge("sluice_limit_cluster_away", "1 while the cluster is away for this limit.", oneIf(away), labels...)
}

// collectRedis tells of the way to Redis.
func collectRedis(c *redis.Client, sink *observe.Sink) {
	if c == nil {
		return
	}
	s := c.Status()
	sink.Gauge("sluice_redis_away", "1 while the circuits to all shards of Redis are open: nobody waits for it.", oneIf(s.Away))
	sink.Gauge("sluice_redis_shards", "Shards of the Redis cluster; 1 of another Redis.", float64(s.Shards))
	sink.Gauge("sluice_redis_shards_away", "Shards of which the circuit is open.", float64(s.Missing))
	sink.Gauge("sluice_redis_waiting", "Questions that wait for the next batch.", float64(s.Waiting))
	sink.Counter("sluice_redis_commands_total", "Commands sent to Redis.", float64(s.Commands))
	sink.Counter("sluice_redis_batches_total", "Batches of commands, each a round trip.", float64(s.Batches))
	sink.Counter("sluice_redis_errors_total", "Commands without a good answer.", float64(s.Errors))
	sink.Counter("sluice_redis_timeouts_total", "Requests that waited for Redis in vain.", float64(s.Timeouts))
	sink.Counter("sluice_redis_alone_total", "Requests that did not wait since Redis was away.", float64(s.Alone))
	sink.Counter("sluice_redis_dropped_total", "Questions for which there was no room.", float64(s.Dropped))
	sink.Counter("sluice_redis_losses_total", "Times that Redis went away.", float64(s.Losses))
}

// clusterStatus tells of what is shared with other nodes; nil: nothing is.
func clusterStatus(c *redis.Client) *admin.ClusterStatus {
	if c == nil {
		return nil
	}
	s := c.Status()
	return &admin.ClusterStatus{Away: s.Away, Shards: s.Shards, Missing: s.Missing, Since: s.Since, Problem: s.Problem, Commands: s.Commands, Batches: s.Batches, Errors: s.Errors,
		Timeouts: s.Timeouts, Alone: s.Alone, Dropped: s.Dropped}
}

// limitStatus tells of all policies of limits.
func (s *Server) limitStatus() (out []admin.LimitStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for _, l := range now.compiled.Limiters {
		one := admin.LimitStatus{Policy: l.Name, Kind: "rate_limit", Refused: []admin.RefusedKey{}}
		if l.Rate == nil {
			one.Kind = "concurrency"
			one.Levels = []admin.LevelStatus{levelStatus(l.Flight.Keys().String(), strconv.Itoa(int(l.Flight.Limit())), l.Flight.Stats())}
		} else {
			for n := range l.Rate.Levels() {
				one.Levels = append(one.Levels, rateStatus(l.Rate, n))
			}
		}
		var top *limits.Top
		for i := range s.loops {
			if t := s.addCounts(l, i, one.Levels); top == nil {
				top = t
			} else if t != nil {
				top.Merge(t)
			}
		}
		if top != nil {
			for _, k := range top.Keys()[:min(topKeys, len(top.Keys()))] {
				one.Refused = append(one.Refused, admin.RefusedKey{Key: k.Label, Count: k.Count, Error: k.Error})
			}
		}
		out = append(out, one)
	}
	return out
}

func levelStatus(level, limit string, s limits.Stats) admin.LevelStatus {
	return admin.LevelStatus{Level: level, Limit: limit, Keys: s.Used, Slots: s.Slots, Bytes: s.Bytes, Evicted: s.Evicted, Untracked: s.Untracked}
}

// rateStatus tells of level n of a rate_limit, with what it has of the cluster.
func rateStatus(p *ratelimit.Policy, n int) admin.LevelStatus {
	level := p.Level(n)
	s := levelStatus(level.Name, windowsText(level.Windows), p.Stats(n))
	for _, r := range p.Rates(n)[1:] {
		s.Rates = append(s.Rates, r.Name+": "+windowsText(r.Windows))
	}
	s.Mode = p.Mode().String()
	if c, away, ok := p.Shared(n); ok {
		s.Cluster = &admin.SharedStatus{Away: away, Asks: c.Asks, Granted: c.Granted, Failures: c.Failures + c.Unasked, Alone: c.Alone}
	}
	return s
}

// counted is what one loop says of a limiter.
type counted struct {
	levels []ratelimit.Report
	top    *limits.Top
}

// addCounts adds what loop i has counted, and gives its refused keys. A loop that does not answer in time is left out.
func (s *Server) addCounts(l *compile.Limiter, i int, to []admin.LevelStatus) *limits.Top {
	answer := make(chan counted, 1)
	err := s.loops[i].Do(time.Second, func() {
		var c counted
		if l.Rate == nil {
			c.levels, c.top = []ratelimit.Report{{Counts: ratelimit.Counts(l.Flight.Report(i))}}, l.Flight.Top(i)
		} else {
			for n := range l.Rate.Levels() {
				c.levels = append(c.levels, l.Rate.Report(i, n))
			}
			c.top = l.Rate.Top(i)
		}
		answer <- c
	})
	if err != nil {
		return nil
	}
	c := <-answer
	for n, r := range c.levels {
		to[n].Allowed += r.Allowed
		to[n].Refused += r.Refused
		to[n].Passed += r.Passed
		to[n].Misses += r.Leases.Misses
	}
	return c.top
}

// windowsText writes limits as a configuration does.
func windowsText(windows []limits.Window) string {
	var texts []string
	for _, w := range windows {
		unit := w.Period.String()
		switch w.Period {
		case time.Second:
			unit = "s"
		case time.Minute:
			unit = "min"
		case time.Hour:
			unit = "h"
		case 24 * time.Hour:
			unit = "day"
		}
		texts = append(texts, fmt.Sprintf("%d/%s", w.Limit, unit))
	}
	return strings.Join(texts, ", ")
}

// limiter finds a policy of limits by its name.
func (s *Server) limiter(name string) (*compile.Limiter, error) {
	if now := s.state.Load(); now != nil {
		if i := slices.IndexFunc(now.compiled.Limiters, func(l *compile.Limiter) bool { return l.Name == name }); i >= 0 {
			return now.compiled.Limiters[i], nil
		}
	}
	return nil, fmt.Errorf("there is no policy of limits %q", name)
}

// keyStatus tells what one key has left of each level whose key is made of as many values.
func (s *Server) keyStatus(name string, values []string) (out []admin.KeyStatus, err error) {
	l, err := s.limiter(name)
	if err != nil {
		return nil, err
	}
	if l.Rate == nil {
		n, ok := l.Flight.InFlight(values, s.registry.Wall())
		if !ok {
			return nil, errKey(name, values)
		}
		return []admin.KeyStatus{{Level: l.Flight.Keys().String(), Limit: strconv.Itoa(int(l.Flight.Limit())), Remaining: l.Flight.Limit() - min(n, l.Flight.Limit())}}, nil
	}
	for i := range l.Rate.Levels() {
		for j, r := range l.Rate.Rates(i) {
			d, ok := l.Rate.Peek(i, j, values, s.registry.Wall())
			if !ok || j > 0 && d.Reset == 0 { // nothing is used of a rate that somebody else has
				continue
			}
			out = append(out, admin.KeyStatus{Level: l.Rate.Level(i).Name, Rate: r.Name, Limit: windowsText(r.Windows[d.Window : d.Window+1]),
				Remaining: d.Remaining, Reset: d.Reset})
		}
	}
	if len(out) == 0 {
		return nil, errKey(name, values)
	}
	return out, nil
}

func errKey(name string, values []string) error {
	return fmt.Errorf("no key of policy %q is made of %q", name, values)
}

// resetKey makes one key new, on each level whose key is made of as many values.
func (s *Server) resetKey(name string, values []string) error {
	l, err := s.limiter(name)
	if err != nil {
		return err
	}
	if l.Rate == nil {
		return fmt.Errorf("policy %q counts what is in flight: that ends by itself", name)
	}
	for i, loop := range s.loops {
		if err := loop.Do(time.Second, func() { l.Rate.Settle(i) }); err != nil {
			return fmt.Errorf("cannot reset: %w", err)
		}
	}
	found := false
	for i := range l.Rate.Levels() {
		_, ok, err := l.Rate.Forget(i, values)
		if err != nil {
			return fmt.Errorf("cannot reset it in the cluster: %w", err)
		}
		found = found || ok
	}
	if !found {
		return errKey(name, values)
	}
	return nil
}
