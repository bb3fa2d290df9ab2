package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"github.com/sluice-gateway/sluice/limits"
)

// slots is how many a Redis cluster has. Each key is in one of them.
const slots = 16384

// relearnEvery is how often a cluster is asked who has which slots, while all of it is there.
const relearnEvery = time.Second

// layout says which part has which slot. It is immutable.
type layout struct {
	parts []*part // all that there ever were: parts[i] is that of number i
	of    [slots]uint8
	used  []*part // those that have slots
}

// at is the part that has a slot.
func (l *layout) at(slot int) *part { return l.parts[l.of[slot]] }

// away counts the parts that are.
func (l *layout) away() (n int) {
	for _, p := range l.used {
		if p.away.Load() {
			n++
		}
	}
	return n
}

// span is slots in a row that one shard has.
type span struct {
	first, last int
	shard       string
}

// readSpans reads an answer to CLUSTER SLOTS: first slot, last slot, then the nodes that have them, the master first, each with its host,
// its port and its name.
func readSpans(r rueidis.RedisResult) (spans []span, err error) {
	all, err := r.ToArray()
	if err != nil {
		return nil, err
	}
	if len(all) > slots {
		return nil, errAnswer
	}
	for i := range all {
		one, err := all[i].ToArray()
		if err != nil || len(one) < 3 {
			return nil, errAnswer
		}
		first, err1 := one[0].AsInt64()
		last, err2 := one[1].AsInt64()
		master, err3 := one[2].ToArray()
		if err1 != nil || err2 != nil || err3 != nil || first < 0 || last < first || last >= slots || len(master) < 2 {
			return nil, errAnswer
		}
		host, _ := master[0].ToString() // none, where the node does not know its own
		port, err := master[1].AsInt64()
		if err != nil {
			return nil, errAnswer
		}
		spans = append(spans, span{int(first), int(last), fmt.Sprintf("%s:%d", host, port)})
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first - b.first })
	return spans, nil
}

// learn asks conn's nodes, one after the other, who has which slots, until one knows.
func (c *Client) learn(ctx context.Context, conn rueidis.Client) {
	for _, node := range conn.Nodes() {
		ctx, cancel := context.WithTimeout(ctx, c.patience())
		spans, err := readSpans(node.Do(ctx, node.B().ClusterSlots().Build()))
		cancel()
		if err == nil && len(spans) > 0 {
			c.lay(spans)
			return
		}
	}
}

// lay makes the layout of these slots. Parts are numbered by their first slot, so that a replica that takes the place of its master takes
// that part. Part 0 has what no shard has. A part that is new is taken to be there: the cluster has named it, and who finds
// that it is not waits once.
func (c *Client) lay(spans []span) {
	before := c.layout.Load()
	next := &layout{parts: slices.Clone(before.parts)}
	numbers := map[string]uint8{}
	for _, s := range spans {
		number, known := numbers[s.shard]
		if !known {
			number = uint8(1 + len(numbers)%(limits.MaxParts-1))
			numbers[s.shard] = number
		}
		for slot := s.first; slot <= s.last; slot++ {
			next.of[slot] = number
		}
	}
	if next.of == before.of {
		return
	}
	for len(next.parts) < min(1+len(numbers), limits.MaxParts) {
		p := newPart(c, len(next.parts))
		p.away.Store(false)
		next.parts = append(next.parts, p)
		c.speak(p)
	}
	has := [limits.MaxParts]bool{}
	for _, number := range next.of {
		has[number] = true
	}
	for number, p := range next.parts {
		if has[number] {
			next.used = append(next.used, p)
		}
	}
	c.layout.Store(next)
	c.spec.Log.Info("the layout of the redis cluster is known", "shards", len(numbers), "without_shard", has[0])
}

// slot is where a cluster has a key; without one all keys are in slot 0.
func (b *Buckets) slot(k limits.Key) int {
	switch {
	case b.client.spec.Mode != Cluster:
		return 0
	case b.tagged:
		return int(b.sum) % slots
	}
	sum := b.sum
	for _, half := range [...]uint64{k.Hi, k.Lo} {
		for shift := 60; shift >= 0; shift -= 4 {
			sum = crc16(sum, hexDigits[half>>shift&15])
		}
	}
	return int(sum) % slots
}

const hexDigits = "0123456789abcdef"

// crc16 adds a byte to the checksum that Redis gives out slots by, half a byte at a time: CRC-16/XMODEM, as the specification of
// Redis clusters has it.
func crc16(sum uint16, c byte) uint16 {
	steps := [16]uint16{0, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef}
	sum = sum<<4 ^ steps[sum>>12^uint16(c>>4)]
	return sum<<4 ^ steps[sum>>12^uint16(c&15)]
}

// checksum is the start of that of all keys with a prefix, and says whether what stands in braces there alone counts.
func checksum(prefix string) (sum uint16, tagged bool) {
	if _, rest, ok := strings.Cut(prefix, "{"); ok {
		prefix, _, tagged = strings.Cut(rest, "}")
	}
	for i := range len(prefix) {
		sum = crc16(sum, prefix[i])
	}
	return sum, tagged
}
