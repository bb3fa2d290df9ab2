package compile

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/ratelimit"
	"github.com/sluice-gateway/sluice/limits"
	"github.com/sluice-gateway/sluice/limits/redis"
)

// sharing is the way to what a cluster shares. It outlives configurations as long as none says anything else of it.
type sharing struct {
	spec   config.Cluster // less its places
	tls    *upstreamTLS   // nil: not encrypted
	seed   limits.Seed    // of the keys of limits, the same on all nodes
	client *redis.Client
	serial int // from 1: no two of a process have the same
}

// Redis is where limits of the cluster are; nil: there is none.
func (c *Compiled) Redis() *redis.Client {
	if c.sharing == nil {
		return nil
	}
	return c.sharing.client
}

// share finds the sharing of a configuration: the one in force, or a new one, which begins when it is applied.
func (r *Registry) share(c *Compiled) (err error) {
	cfg := c.Config
	if cfg.Cluster == nil {
		return nil
	}
	s := &sharing{spec: *cfg.Cluster}
	s.spec.Pos, s.spec.Redis.TLS = config.Pos{}, nil
	var before *upstreamTLS
	if r.sharing != nil {
		before = r.sharing.tls
	}
	if t := cfg.Cluster.Redis.TLS; t != nil {
		if s.tls, err = c.secure(&config.Upstream{Name: "redis", TLS: t, Protocol: "h1"}, before); err != nil {
			return err
		}
	}
	if r.sharing != nil && s.tls == r.sharing.tls && reflect.DeepEqual(s.spec, r.sharing.spec) {
		c.sharing = r.sharing
		return nil
	}
	x := &s.spec.Redis
	spec := redis.Spec{Addresses: x.Addresses, Mode: redis.Mode(x.Mode), Username: x.Username, Password: x.Password.Reveal(), Database: x.Database,
		Master: x.Sentinel.Master, SentinelUsername: x.Sentinel.Username, SentinelPassword: x.Sentinel.Password.Reveal(),
		Timeout: x.Timeout, Clock: r.Wall, Log: r.log}
	if s.tls != nil {
		spec.TLS = s.tls.config.Clone()
		spec.TLS.NextProtos = nil // Redis agrees on no protocol
	}
	if s.client, err = redis.New(spec); err != nil {
		return fmt.Errorf("%s: %w", cfg.Cluster.Pos, err)
	}
	s.seed = sharedSeed(&s.spec)
	r.sharings++
	s.serial = r.sharings
	c.sharing = s
	return nil
}

// sharedSeed is made of what all nodes know and clients do not.
func sharedSeed(c *config.Cluster) limits.Seed {
	secret := c.Secret.Reveal()
	if secret == "" {
		secret = c.Redis.Password.Reveal()
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("sluice limits "+secret), uint32(len(secret))))
	seed, err := limits.ParseSeed(sum[:limits.SeedBytes])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return seed
}

// putSharing puts that of c in force. What was ends once it has told everybody that there is no answer.
func (r *Registry) putSharing(c *Compiled) {
	if r.sharing == c.sharing {
		return
	}
	if old := r.sharing; old != nil {
		r.closing.Go(old.client.Close)
	}
	if c.sharing != nil {
		c.sharing.client.Start()
	}
	r.sharing = c.sharing
}

// keySeed is the one that the keys of a policy are made with.
func (r *Registry) keySeed(c *Compiled, spec *config.RateLimit) limits.Seed {
	if spec.Mode == "local" {
		return r.seed
	}
	return c.sharing.seed
}

// shareRates gives each rate of a policy its buckets in the cluster.
func shareRates(name string, s *ratelimit.Spec) error {
	together := s.Mode == ratelimit.Strict && len(s.Levels) > 1
	give := func(rate string, windows []limits.Window) (*redis.Buckets, error) {
		return s.Cluster.Buckets(redis.BucketSpec{Policy: name, Name: rate, Together: together, Windows: windows})
	}
	var err error
	for i := range s.Levels {
		l := &s.Levels[i]
		if l.Buckets, err = give(l.Name, l.Windows); err != nil {
			return err
		}
		for _, own := range []struct {
			kind  string
			rates []ratelimit.Rate
		}{{" tier ", l.Tiers}, {" consumer ", l.Consumers}} {
			for j := range own.rates {
				if own.rates[j].Buckets, err = give(l.Name+own.kind+own.rates[j].Name, own.rates[j].Windows); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func modeOf(word string) ratelimit.Mode {
	switch word {
	case "lease":
		return ratelimit.Lease
	case "strict":
		return ratelimit.Strict
	}
	return ratelimit.Local
}

func awayOf(word string) limits.Away {
	switch word {
	case "allow":
		return limits.AwayAllow
	case "deny":
		return limits.AwayDeny
	}
	return limits.AwayLocal
}
