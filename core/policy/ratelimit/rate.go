package ratelimit

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// Rate is what a bucket of a level holds.
type Rate struct {
	Name    string // of the tier, or of the consumer; "": whoever has no other
	Windows []limits.Window
	Titles  []string       // what clients call its windows: one for each
	Buckets *redis.Buckets // those of the cluster; nil: there are none
}

// rates are those of a level: the level's own first, then those of tiers and consumers. Immutable.
type rates struct {
	all        []Rate
	byTier     map[string]int
	byConsumer map[string]int
}

func newRates(l *Level) rates {
	r := rates{all: []Rate{{Windows: l.Windows, Titles: l.Titles, Buckets: l.Buckets}}}
	add := func(prefix string, own []Rate) map[string]int {
		at := map[string]int{}
		for _, o := range own {
			at[o.Name] = len(r.all)
			o.Name = prefix + o.Name
			r.all = append(r.all, o)
		}
		if len(at) == 0 {
			return nil
		}
		return at
	}
	r.byTier, r.byConsumer = add("tier ", l.Tiers), add("consumer ", l.Consumers)
	return r
}

// of finds the rate of x: its consumer's own, else its tier's, else the level's. claim names the tier; "": the consumer does.
func (r *rates) of(x *core.Exchange, claim string) int {
	if x.Consumer != nil && r.byConsumer != nil {
		if i, ok := r.byConsumer[x.Consumer.Name]; ok {
			return i
		}
	}
	if r.byTier == nil {
		return 0
	}
	if claim != "" {
		tier, _ := x.Claims.Value(claim)
		return r.byTier[tier]
	}
	if x.Consumer == nil {
		return 0
	}
	return r.byTier[x.Consumer.Tier]
}

// bucket is what all loops share of a rate.
type bucket struct {
	limit   *limits.Limit   // of this node
	cluster *limits.Cluster // this node's part of the cluster's; nil: it has none
}

// newBuckets makes the buckets of a rate, from those that the rate of this name had before.
func (p *Policy) newBucket(l *Level, r *Rate, before *bucket, now int64) (b bucket, err error) {
	s := limits.Spec{Windows: r.Windows, Capacity: p.capacity(l, r)}
	if p.remote() && p.spec.Away != limits.AwayLocal {
		s.Capacity = limits.MinCapacity // it is not asked
	}
	if before != nil {
		b.limit, err = before.limit.Reconfigure(s, now)
	} else {
		b.limit, err = limits.NewLimit(s)
	}
	if err != nil || p.spec.Mode != Lease {
		return b, err
	}
	limit, period := scaled(r.Windows[0])
	b.cluster, err = limits.NewCluster(limits.ClusterSpec{Limit: limit, Period: period, Capacity: p.capacity(l, r), Away: p.spec.Away, Local: b.limit}, r.Buckets)
	if err != nil {
		return b, err
	}
	r.Buckets.Serve(b.cluster)
	return b, nil
}

// account is a loop's part of a rate: its way to the limit. Only the loop touches it.
//
// The policies of one name that follow each other have the same account. So an exchange that began under an old configuration
// takes of the limit in force: one that has been replaced several times may not be taken of any more (see limits.Limit.Reconfigure).
type account struct {
	bucket
	lease *limits.Lease // of the limit; nil: it is asked itself
}

// way is where c takes now.
func (c *account) way() limits.Level {
	switch {
	case c.cluster != nil:
		return c.cluster
	case c.lease != nil:
		return c.lease
	}
	return c.limit
}

// Take implements limits.Level, as do Peek and Refund.
func (c *account) Take(key limits.Key, cost uint32, now int64) limits.Decision {
	return c.way().Take(key, cost, now)
}

func (c *account) Peek(key limits.Key, cost uint32, now int64) limits.Decision {
	return c.way().Peek(key, cost, now)
}

func (c *account) Refund(key limits.Key, cost uint32, at, now int64) {
	c.way().Refund(key, cost, at, now)
}

// charge takes cost although it may not be there.
func (c *account) charge(key limits.Key, cost uint32, now int64) {
	if c.cluster != nil {
		c.cluster.Charge(key, cost, now)
		return
	}
	c.limit.Charge(key, cost, now)
}

// branch is a loop's part of a level: an account for each rate, of which the exchange that is decided on uses one.
type branch struct {
	accounts []*account
	now      *account
	counts   *Counts // shared with the policies before and after
}

// Take implements limits.Level, as do Peek and Refund.
func (b *branch) Take(key limits.Key, cost uint32, now int64) limits.Decision {
	return b.now.Take(key, cost, now)
}

func (b *branch) Peek(key limits.Key, cost uint32, now int64) limits.Decision {
	return b.now.Peek(key, cost, now)
}

func (b *branch) Refund(key limits.Key, cost uint32, at, now int64) {
	b.now.Refund(key, cost, at, now)
}
