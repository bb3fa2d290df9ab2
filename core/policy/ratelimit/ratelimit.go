// Package ratelimit is the policy that bounds requests in time: the mechanism is package limits, this one asks it for each
// request, and tells the client.
//
// Buckets are this node's, or the cluster's: then they are taken of ahead of need, or each request waits for the decision, beside the loop.
//
// A policy has one level or several, from the outermost to the innermost, such as the whole gateway and a client. All of them
// are one decision. Levels of which many requests take, because there is one key for all or one for a route, are asked
// through leases of their loop; the others directly.
package ratelimit

import (
	"errors"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// Missing is what becomes of a request that lacks the key of a level.
type Missing uint8

// What may be done: all such requests share a bucket, they are not counted there, or they are refused.
const (
	Shared Missing = iota
	Allow
	Deny
)

// Mode is whose buckets they are.
type Mode uint8

// The modes.
const (
	Local  Mode = iota // this node's
	Lease              // the cluster's, of which the node takes ahead of need: no request waits
	Strict             // the cluster's, of which each request takes, and waits for it
)

// String is the mode as a configuration has it.
func (m Mode) String() string { return [...]string{"local", "lease", "strict"}[m] }

// Level is one bound, as it is configured.
type Level struct {
	Name    string // in metrics
	Windows []limits.Window
	Keys    *core.KeyRecipe
	Leased  bool           // many requests take of few keys
	Err     *core.Error    // of those that it refuses
	Titles  []string       // what clients call its windows: one for each
	Buckets *redis.Buckets // those of the cluster; nil in mode Local
	// Tiers and Consumers have rates of their own in the place of Windows.
	Tiers, Consumers []Rate
}

// After says how a response tells what its request has cost.
type After struct {
	Header string
	Max    uint32 // what is above counts as Max
	Remove bool   // the client does not get the header
}

// Spec is what a Policy is made of. It is copied.
type Spec struct {
	Levels        []Level // 1 to limits.MaxLevels
	TierClaim     string  // of the token, that names the tier; "": the consumer's own
	Mode          Mode
	Away          limits.Away   // what is done while the cluster is
	Cluster       *redis.Client // nil in mode Local
	Capacity      int           // keys of a level that has more than one
	Cost          uint32
	After         *After // nil: Cost is all
	Missing       Missing
	HideHeaders   bool
	LegacyHeaders bool    // X-RateLimit-* too
	Share         float64 // of the requests over a limit that are refused: 1 all of them
	DryRun        bool    // none is, and no header tells of the limit
	Refusal       *core.Refusal
}

// Policy is the policy. Start makes it ready. From then on it is immutable, but for its lanes, each of which belongs to one loop.
type Policy struct {
	spec    Spec
	rates   []rates    // by level
	buckets [][]bucket // by level and rate
	texts   texts
	lanes   []*lane // by loop
	tells   bool    // headers tell of the limit
}

// New makes a policy. It takes no memory for keys before Start.
func New(s Spec) *Policy {
	p := &Policy{spec: s, tells: !s.HideHeaders && !s.DryRun}
	p.spec.Levels = append([]Level(nil), s.Levels...)
	for i := range p.spec.Levels {
		p.rates = append(p.rates, newRates(&p.spec.Levels[i]))
	}
	p.texts = newTexts(p.rates)
	return p
}

// Check says whether Start will be able to make the limits.
func (p *Policy) Check() error {
	for i := range p.rates {
		for j := range p.rates[i].all {
			r := &p.rates[i].all[j]
			if _, err := limits.NewLimit(limits.Spec{Windows: r.Windows}); err != nil {
				return err
			}
			if p.remote() && (r.Buckets == nil || p.spec.Cluster == nil) {
				return errors.New("a limit of the cluster has no cluster")
			}
		}
	}
	return nil
}

// remote says whether buckets are the cluster's.
func (p *Policy) remote() bool { return p.spec.Mode != Local }

// capacity is how many keys a rate has room for.
func (p *Policy) capacity(l *Level, r *Rate) int {
	if l.Keys.One() || strings.HasPrefix(r.Name, "consumer ") && l.Keys.String() == "consumer" {
		return limits.MinCapacity
	}
	return p.spec.Capacity
}

// Bytes is the memory that the tables of level i take.
func (p *Policy) Bytes(i int) int {
	sum, l := 0, &p.spec.Levels[i]
	for j := range p.rates[i].all {
		bytes := limits.TableBytes(p.capacity(l, &p.rates[i].all[j]))
		if p.spec.Mode == Lease && p.spec.Away == limits.AwayLocal {
			bytes *= 2 // what the cluster has granted, and what is taken while it is away
		}
		sum += bytes
	}
	return sum
}

// Levels is how many there are.
func (p *Policy) Levels() int { return len(p.spec.Levels) }

// Level is how level i is configured.
func (p *Policy) Level(i int) *Level { return &p.spec.Levels[i] }

// Mode is whose buckets they are.
func (p *Policy) Mode() Mode { return p.spec.Mode }

// Start makes p ready, off the loops, with what before has counted: levels and rates of one name keep their buckets, though they hold
// another number. nil: there is none. p is in use once what Start has posted to the loops has run.
func (p *Policy) Start(workers []*core.Worker, before *Policy, now int64) error {
	for i := range p.rates {
		level := &p.spec.Levels[i]
		old := before.find(level.Name)
		buckets := make([]bucket, len(p.rates[i].all))
		for j := range buckets {
			r := &p.rates[i].all[j]
			var from *bucket
			if k := before.rate(old, r.Name); k >= 0 {
				from = &before.buckets[old][k]
			}
			var err error
			if buckets[j], err = p.newBucket(level, r, from, now); err != nil {
				return err
			}
		}
		p.buckets = append(p.buckets, buckets)
	}
	for _, w := range workers {
		a, err := p.newLane(w.Loop, before, len(p.lanes), len(workers))
		if err != nil {
			return err
		}
		p.lanes = append(p.lanes, a)
		w.Loop.Post(func() { a.move(p.buckets, len(workers)) })
	}
	return nil
}

// find is the level of that name; -1: there is none.
func (p *Policy) find(name string) int {
	if p == nil {
		return -1
	}
	return slices.IndexFunc(p.spec.Levels, func(l Level) bool { return l.Name == name })
}

// rate is the one of that name of a level; -1: there is none.
func (p *Policy) rate(level int, name string) int {
	if level < 0 {
		return -1
	}
	return slices.IndexFunc(p.rates[level].all, func(r Rate) bool { return r.Name == name })
}

// OnRequest takes of all levels, or refuses.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	l := x.Worker.Loop
	a := p.lanes[l.Index()]
	lacks := p.ask(x, a)
	var d limits.Decision
	var n *note
	switch {
	case lacks >= 0:
		d.Level = uint8(lacks)
	case p.spec.Mode == Strict:
		n = a.noteOf()
		d = p.takeStrict(x, a, n)
	default:
		d = a.take(l.Wall())
	}
	if !d.Allowed {
		return p.refuse(x, a, d, n)
	}
	for i, b := range a.branches {
		if a.asks[i].Cost > 0 {
			b.counts.Allowed++
		}
	}
	if tells := p.tells && d.Limit > 0; tells || p.spec.After != nil {
		if n == nil {
			n = a.noteOf()
		}
		n.Decision, n.tells, n.admitted = d, tells, true
		x.Keep(n)
	} else if n != nil {
		a.done(n)
	}
	if d.Delay > 0 && !p.spec.DryRun {
		a.blamed.delayed++
		// A client who leaves meanwhile keeps his place in the queue, so that those behind him leave when they were told to.
		return x.Delay(d.Delay)
	}
	return core.Continue
}

// ask fills the lane's asks, and chooses the rate of each level. lacks is the first level of which x has no key although it must; -1: none.
func (p *Policy) ask(x *core.Exchange, a *lane) (lacks int) {
	lacks = -1
	for i := range p.spec.Levels {
		key, missing := p.spec.Levels[i].Keys.Key(x)
		a.asks[i] = limits.Ask{Key: key, Cost: p.spec.Cost}
		if missing && p.spec.Missing != Shared {
			a.asks[i].Cost = 0
			if p.spec.Missing == Deny && lacks < 0 {
				lacks = i
			}
		}
		if len(p.rates[i].all) > 1 {
			a.choose(i, p.rates[i].of(x, p.spec.TierClaim))
		}
	}
	return lacks
}

// refuse answers, unless the request is one of those that are only counted.
func (p *Policy) refuse(x *core.Exchange, a *lane, d limits.Decision, n *note) core.Verdict {
	level := &p.spec.Levels[d.Level]
	a.blamed.add(a.asks[d.Level].Key, level.Keys, x)
	counts := a.branches[d.Level].counts
	if p.spec.DryRun || p.spec.Share < 1 && a.random.Float64() >= p.spec.Share {
		counts.Passed++
		if n != nil {
			a.done(n)
		}
		return core.Continue
	}
	counts.Refused++
	if n == nil {
		n = a.noteOf()
	}
	n.Decision, n.tells = d, true
	x.Keep(n)
	p.spec.Refusal.Answer(x, level.Err)
	return core.Respond
}

// OnResponse takes what the request has cost beyond what was taken before, and tells the client of the limit.
func (p *Policy) OnResponse(x *core.Exchange) {
	n, ok := x.Kept().(*note)
	if !ok {
		return
	}
	if p.spec.After != nil {
		p.settle(x, n)
	}
	if n.tells {
		p.tell(&x.Response, n)
	}
}

// OnEnd takes back what OnRequest noted.
func (p *Policy) OnEnd(x *core.Exchange) {
	if n, ok := x.Kept().(*note); ok {
		p.lanes[x.Worker.Loop.Index()].done(n)
	}
}
