package limits

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// The numbers beside each other: one check of a limit, uncontended over many keys, and all processors on one key. The peers
// are what a Go program would take: a map of golang.org/x/time/rate limiters, and a map of counters, each in 64 shards with a
// mutex; for one key a single rate.Limiter.

const benchKeys = 1 << 14

func benchLimit(b *testing.B, windows int) *Limit {
	w := []Window{{Limit: 1000, Period: time.Second}, {Limit: 100_000, Period: time.Hour}}
	return mustLimit(b, benchKeys, w[:windows]...)
}

// each runs f on all processors, with a clock that goes on by 1 us a check.
func each(b *testing.B, f func(n int, now int64)) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		n := int(rand.Uint32())
		now := time.Now().UnixNano()
		for pb.Next() {
			n++
			now += 1000
			f(n&(benchKeys-1), now)
		}
	})
}

func keysOf() (all [benchKeys]Key, texts [benchKeys][]byte) {
	seed := NewSeed()
	for i := range all {
		texts[i] = fmt.Appendf(nil, "192.0.%d.%d", i>>8, i&255)
		all[i] = seed.Key(texts[i])
	}
	return all, texts
}

func BenchmarkManyKeys(b *testing.B) {
	keys, texts := keysOf()
	b.Run("limit", func(b *testing.B) {
		l := benchLimit(b, 1)
		each(b, func(n int, now int64) { l.Take(keys[n], 1, now) })
	})
	b.Run("limit-with-hash", func(b *testing.B) {
		l, seed := benchLimit(b, 1), NewSeed()
		each(b, func(n int, now int64) { l.Take(seed.Key(texts[n]), 1, now) })
	})
	b.Run("limit-two-windows", func(b *testing.B) {
		l := benchLimit(b, 2)
		each(b, func(n int, now int64) { l.Take(keys[n], 1, now) })
	})
	for _, a := range []Algorithm{SlidingWindow, FixedWindow, LeakyBucket} {
		b.Run("limit-"+a.String(), func(b *testing.B) {
			l := mustLimit(b, benchKeys, Window{Algorithm: a, Limit: 1000, Period: time.Second})
			each(b, func(n int, now int64) { l.Take(keys[n], 1, now) })
		})
	}
	b.Run("x-time-rate", func(b *testing.B) {
		var shards [64]struct {
			sync.Mutex
			m map[string]*rate.Limiter
		}
		for i := range shards {
			shards[i].m = map[string]*rate.Limiter{}
		}
		each(b, func(n int, now int64) {
			s := &shards[n&63]
			s.Lock()
			l := s.m[string(texts[n])]
			if l == nil {
				l = rate.NewLimiter(1000, 1000)
				s.m[string(texts[n])] = l
			}
			s.Unlock()
			l.AllowN(time.Unix(0, now), 1)
		})
	})
	b.Run("mutex-map", func(b *testing.B) {
		var shards [64]struct {
			sync.Mutex
			m map[string]int64
		}
		for i := range shards {
			shards[i].m = map[string]int64{}
		}
		each(b, func(n int, now int64) {
			s := &shards[n&63]
			s.Lock()
			if tat := max(s.m[string(texts[n])], now) + 1_000_000; tat <= now+1_000_000_000 {
				s.m[string(texts[n])] = tat
			}
			s.Unlock()
		})
	})
}

func BenchmarkOneKey(b *testing.B) {
	k := key(1)
	window := Window{Limit: 5_000_000, Period: time.Second}
	b.Run("limit", func(b *testing.B) {
		l := mustLimit(b, 0, window)
		each(b, func(_ int, now int64) { l.Take(k, 1, now) })
	})
	b.Run("lease", func(b *testing.B) {
		l := mustLimit(b, 0, window)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			e, _ := NewLease(l, 2, 1)
			now := time.Now().UnixNano()
			for pb.Next() {
				now += 1000
				e.Take(k, 1, now)
			}
		})
	})
	b.Run("x-time-rate", func(b *testing.B) {
		l := rate.NewLimiter(5_000_000, 5_000_000)
		each(b, func(_ int, now int64) { l.AllowN(time.Unix(0, now), 1) })
	})
	b.Run("mutex-map", func(b *testing.B) {
		var mu sync.Mutex
		m := map[Key]int64{}
		each(b, func(_ int, now int64) {
			mu.Lock()
			m[k] = max(m[k], now) + 200
			mu.Unlock()
		})
	})
}

// Three levels as one decision: the gateway and the tenant leased, the client in the table.
func BenchmarkHierarchy(b *testing.B) {
	keys, _ := keysOf()
	global := mustLimit(b, 0, Window{Limit: 5_000_000, Period: time.Second})
	tenant := mustLimit(b, 1000, Window{Limit: 1_000_000, Period: time.Second})
	client := benchLimit(b, 1)
	b.ReportAllocs()
	var loops atomic.Int32
	b.RunParallel(func(pb *testing.PB) {
		one, _ := NewLease(global, 2, 1)
		two, _ := NewLease(tenant, 2, 64)
		h, _ := NewHierarchy(one, two, client)
		n, now := int(loops.Add(1))*5000, time.Now().UnixNano()
		asks := []Ask{{Key{}, 1}, {Key{}, 1}, {Key{}, 1}}
		for pb.Next() {
			n++
			now += 1000
			asks[1].Key, asks[2].Key = keys[n&15], keys[n&(benchKeys-1)]
			h.Take(asks, now)
		}
	})
}
