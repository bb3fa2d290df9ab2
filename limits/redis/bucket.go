package redis

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/limits"
)

// keyPrefix begins all keys.
const keyPrefix = "sluice:"

// BucketSpec names buckets, of which there is one for each key.
type BucketSpec struct {
	Policy string
	Name   string // of the level and the rate, unique in the policy
	// Together says that buckets of several names of the policy are taken of at once: then they are on one node of a Redis cluster.
	Together bool
	Windows  []limits.Window // 1 to limits.MaxWindows; no leaky bucket
}

// Buckets are those of one name, one for each key, in Redis. Their keys there are made of a fingerprint of the names, algorithms and
// periods, so that a change of the limit keeps what is used, and of the limits.Key: 55 bytes, with some 40 of value. A key is gone when
// its bucket is full. Immutable, but for the Cluster that it is the Source of.
type Buckets struct {
	client  *Client
	prefix  string
	windows []limits.Window
	args    []string // those of ARGV that are always the same
	sum     uint16   // checksum of the prefix, or of its tag if it is tagged
	tagged  bool
	cluster atomic.Pointer[limits.Cluster]
}

// Buckets makes those of s. It asks nothing of Redis.
func (c *Client) Buckets(s BucketSpec) (*Buckets, error) {
	if len(s.Windows) < 1 || len(s.Windows) > limits.MaxWindows {
		return nil, fmt.Errorf("cannot make buckets: %d windows, 1 to %d are possible", len(s.Windows), limits.MaxWindows)
	}
	b := &Buckets{client: c, windows: append([]limits.Window(nil), s.Windows...), args: []string{strconv.Itoa(len(s.Windows))}}
	shape := s.Name
	for _, w := range s.Windows {
		kind, depth := "", uint64(w.Limit)
		switch w.Algorithm {
		case limits.TokenBucket:
			kind = "b"
			if w.Burst > 0 {
				depth = uint64(w.Burst)
			}
		case limits.SlidingWindow:
			kind = "s"
		case limits.FixedWindow:
			kind = "f"
		default:
			return nil, errors.New("cannot make buckets: a leaky bucket is one node's queue")
		}
		b.args = append(b.args, kind, strconv.FormatUint(uint64(w.Limit), 10), strconv.FormatInt(w.Period.Microseconds(), 10), strconv.FormatUint(depth, 10))
		shape += fmt.Sprintf("\x00%s%d", kind, w.Period)
	}
	policy := fingerprint(s.Policy)
	if s.Together { // what stands in braces says which node has it
		policy = "{" + policy + "}"
	}
	b.prefix = keyPrefix + policy + ":" + fingerprint(shape) + ":"
	b.sum, b.tagged = checksum(b.prefix)
	return b, nil
}

// fingerprint is enough of a hash that no two names of a configuration have the same.
func fingerprint(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

// Serve makes c the one that is told what its Asks brought. It is called once, before the first.
func (b *Buckets) Serve(c *limits.Cluster) { b.cluster.Store(c) }

// Part implements limits.Source: a shard of a Redis cluster is one, all of another Redis is part 0.
func (b *Buckets) Part(key limits.Key) int { return b.part(key).number }

func (b *Buckets) part(key limits.Key) *part { return b.client.layout.Load().at(b.slot(key)) }

// name is a key as Redis has it.
func (b *Buckets) name(k limits.Key) string {
	var s strings.Builder
	s.WriteString(b.prefix)
	for _, half := range [...]uint64{k.Hi, k.Lo} {
		for shift := 60; shift >= 0; shift -= 4 {
			s.WriteByte(hexDigits[half>>shift&15])
		}
	}
	return s.String()
}

// Ask implements limits.Source: the question joins the next batch. It neither waits nor allocates; false: so many wait already that there is
// no room for it.
func (b *Buckets) Ask(key limits.Key, tokens uint32, _ int64) bool {
	return b.client.put(question{buckets: b, key: key, tokens: tokens})
}

// Charge takes cost although it may not be there, soon. It neither waits nor allocates; what there is no room for is forgiven, and counted.
func (b *Buckets) Charge(key limits.Key, cost uint32) {
	b.client.put(question{buckets: b, key: key, tokens: cost, op: charge})
}

// Refund gives cost back, soon, likewise.
func (b *Buckets) Refund(key limits.Key, cost uint32) {
	b.client.put(question{buckets: b, key: key, tokens: cost, op: refund})
}

// decision is what an answer about these buckets says.
func (b *Buckets) decision(a answer, level int) limits.Decision {
	w := &b.windows[min(a.window, len(b.windows)-1)]
	return limits.Decision{Allowed: a.allowed, Level: uint8(level), Window: uint8(min(a.window, len(b.windows)-1)), Limit: w.Limit, Remaining: a.remaining,
		Reset: a.reset, RetryAfter: a.retry}
}
