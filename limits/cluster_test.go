package limits

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// bucketSource is a cluster's bucket, which answers after a while. It is a Limit, asked for as much as it has.
type bucketSource struct {
	bucket   *Limit
	latency  int64
	down     bool
	waiting  []question
	asked    int
	capacity int
}

type question struct {
	node   *Cluster
	key    Key
	tokens uint32
	at     int64
}

// nodeSource is one node's way to the bucket.
type nodeSource struct {
	*bucketSource
	node *Cluster
}

func (s *nodeSource) Ask(key Key, tokens uint32, now int64) bool {
	if s.capacity > 0 && len(s.waiting) >= s.capacity {
		return false
	}
	s.asked++
	s.waiting = append(s.waiting, question{s.node, key, tokens, now + s.latency})
	return true
}

func (s *nodeSource) Part(Key) int { return 0 }

// answer answers what is due.
func (s *bucketSource) answer(now int64) {
	for len(s.waiting) > 0 && s.waiting[0].at <= now {
		q := s.waiting[0]
		s.waiting = s.waiting[1:]
		if s.down {
			q.node.Fail(q.key, 100*time.Millisecond, now)
			continue
		}
		tokens := min(q.tokens, s.bucket.Peek(q.key, 0, now).Remaining)
		if tokens > 0 {
			s.bucket.Take(q.key, tokens, now)
			q.node.Grant(q.key, tokens, now)
			continue
		}
		wait := s.bucket.Peek(q.key, 1, now).RetryAfter
		q.node.Empty(q.key, wait, now)
	}
}

func clusterOf(t testing.TB, nodes int, limit, burst uint32, away Away) (*bucketSource, []*Cluster) {
	t.Helper()
	s := &bucketSource{bucket: mustLimit(t, 1000, Window{Limit: limit, Burst: burst, Period: time.Second}), latency: 2 * ms}
	all := make([]*Cluster, nodes)
	for i := range all {
		source := &nodeSource{bucketSource: s}
		local := mustLimit(t, 100, Window{Limit: max(1, limit/uint32(nodes)), Burst: max(1, burst/uint32(nodes)), Period: time.Second})
		c, err := NewCluster(ClusterSpec{Limit: limit, Period: time.Second, Away: away, Local: local, Capacity: 100}, source)
		if err != nil {
			t.Fatal(err)
		}
		source.node, all[i] = c, c
	}
	return s, all
}

// Three nodes, ten times the limit offered: each second sees the limit to within 2 %, with less than one question for 50 requests,
// also after the source was away, when each node goes on with its own part.
func TestClusterLease(t *testing.T) {
	for _, skewed := range []bool{false, true} {
		s, nodes := clusterOf(t, 3, 1000, 100, AwayLocal)
		r := rand.New(rand.NewPCG(1, 1))
		var got admissions
		requests := 0
		for now := int64(0); now < 9*sec; now += r.Int64N(2 * ms / 10) {
			s.down = now >= 3*sec && now < 5*sec
			s.answer(now)
			n := r.IntN(3)
			if skewed {
				n = min(int(r.ExpFloat64()), 2)
			}
			requests++
			if nodes[n].Take(Key{}, 1, now).Allowed {
				got = append(got, now)
			}
		}
		for _, second := range []int64{1, 2, 7, 8} {
			if n := got.between(second*sec, (second+1)*sec); n < 980 || n > 1020 {
				t.Errorf("skewed %v: %d admitted in second %d", skewed, n, second)
			}
		}
		if n := got.between(4*sec, 5*sec); n < 950 || n > 1150 {
			t.Errorf("skewed %v: %d admitted while the source was away", skewed, n)
		}
		if n, most := got.between(0, sec), 1000+100+3*(10+50+1); n > most {
			t.Errorf("skewed %v: %d admitted in the first second, at most %d may be", skewed, n, most)
		}
		stats := nodes[0].Stats()
		if s.asked*50 > requests || stats.Alone == 0 || stats.Failures == 0 || stats.Failures > 30 || stats.Asks == 0 || stats.Granted == 0 {
			t.Errorf("skewed %v: %d questions for %d requests, %+v", skewed, s.asked, requests, stats)
		}
		t.Logf("%d requests, %d questions", requests, s.asked)
	}
}

// The bound holds for each key, whatever comes: what was admitted was granted, but for batch, credit and one cost a node.
func TestClusterBound(t *testing.T) {
	const nodes, limit, burst = 4, 200, 50
	for seed := range uint64(5) {
		s, all := clusterOf(t, nodes, limit, burst, AwayDeny)
		r := rand.New(rand.NewPCG(seed, 2))
		admitted, end := map[int]int64{}, int64(0)
		for now := int64(0); now < 5*sec; now += r.Int64N(ms) {
			s.answer(now)
			k, cost := int(r.ExpFloat64()), uint32(1+r.IntN(5))
			c := all[r.IntN(nodes)]
			peek, d := c.Peek(key(k), cost, now), c.Take(key(k), cost, now)
			if d.Allowed {
				admitted[k] += int64(cost)
				if r.IntN(20) == 0 {
					c.Refund(key(k), cost, now, now)
					admitted[k] -= int64(cost)
				}
			} else if d.RetryAfter <= 0 || d.RetryAfter > 2*time.Second {
				t.Fatalf("%+v", d)
			}
			if peek.Allowed != d.Allowed {
				t.Fatalf("peek %+v, take %+v", peek, d)
			}
			end = now
		}
		for k, n := range admitted {
			if most := burst + limit*end/sec + nodes*(2+10+5); n > most {
				t.Errorf("seed %d key %d: %d admitted, at most %d may be", seed, k, n, most)
			}
		}
		if n := admitted[0]; n < limit*end/sec*97/100 {
			t.Errorf("seed %d: %d admitted of the busiest key, less than 97 %% of %d", seed, n, limit*end/sec)
		}
	}
}

// A new key is admitted before the first answer, as far as its credit goes; then it pays its debt first.
func TestClusterCredit(t *testing.T) {
	s, nodes := clusterOf(t, 1, 100, 100, AwayDeny)
	c, now := nodes[0], 1000*sec
	n := 0
	for range 20 {
		if c.Take(Key{}, 1, now).Allowed {
			n++
		}
	}
	if n != 5 || s.asked != 1 || s.waiting[0].tokens != 2 {
		t.Fatalf("%d admitted on credit, asked %d times for %+v", n, s.asked, s.waiting)
	}
	s.answer(now + 2*ms)
	if d := c.Peek(Key{}, 0, now+2*ms); d.Remaining != 2 { // 5 owed, 2 granted
		t.Fatalf("%+v", d)
	}
	c.Grant(Key{}, 10, now+2*ms)
	c.Take(Key{}, 3, now+2*ms)
	if c.Refund(Key{}, 3, now+2*ms, now+2*ms); c.Peek(Key{}, 0, now+2*ms).Remaining != 12 {
		t.Fatalf("%+v after a refund", c.Peek(Key{}, 0, now+2*ms))
	}
	if d := c.Take(Key{}, 101, now); d.Allowed || d.RetryAfter != Never {
		t.Fatalf("a cost above the limit: %+v", d)
	}
}

// A question whose answer never comes is put again; one for which there is no room, sooner; and what is granted ends.
func TestClusterLost(t *testing.T) {
	s, nodes := clusterOf(t, 1, 100, 100, AwayDeny)
	c := nodes[0]
	now := 50 * sec
	for range 10 {
		c.Take(Key{}, 1, now)
	}
	s.waiting = nil
	if c.Take(Key{}, 1, now+900*ms); s.asked != 1 {
		t.Fatalf("asked %d times", s.asked)
	}
	if c.Take(Key{}, 1, now+1100*ms); s.asked != 2 {
		t.Fatal("a question that was lost is not put again")
	}
	s.capacity = 1
	c.Take(key(1), 1, now)
	if c.Take(key(1), 1, now+10*ms); c.Stats().Unasked != 1 {
		t.Fatalf("%+v", c.Stats())
	}
	s.capacity = 0
	if c.Take(key(1), 1, now+50*ms); s.asked != 3 {
		t.Fatal("no room, and not asked again")
	}
	c.Grant(key(1), 50, now+50*ms)
	if d := c.Peek(key(1), 1, now+900*ms); d.Remaining < 50 {
		t.Fatalf("%+v", d)
	}
	if d := c.Peek(key(1), 1, now+1200*ms); d.Remaining >= 50 {
		t.Fatalf("tokens outlived their time: %+v", d)
	}
	c.Grant(key(77), 50, now) // of a key that nobody knows
	if d := c.Peek(key(77), 1, now); d.Remaining >= 50 {
		t.Fatalf("%+v", d)
	}
}

func TestClusterAway(t *testing.T) {
	for away, want := range map[Away]int{AwayLocal: 10, AwayAllow: 100, AwayDeny: 0} {
		_, nodes := clusterOf(t, 1, 10, 10, away)
		c := nodes[0]
		c.Fail(Key{}, time.Second, 0)
		n := 0
		for range 100 {
			if c.Take(Key{}, 1, ms).Allowed {
				n++
			}
		}
		if n != want || c.Peek(Key{}, 1, ms).Allowed != (away == AwayAllow) {
			t.Errorf("away %d: %d of 100 admitted, want %d", away, n, want)
		}
		if c.Refund(Key{}, 1, ms, ms); c.Peek(Key{}, 1, ms).Allowed != (away != AwayDeny) {
			t.Errorf("away %d: a refund was lost", away)
		}
		asks := c.Stats().Asks
		c.Take(Key{}, 1, sec-1)
		c.Take(Key{}, 1, sec)
		if c.Take(Key{}, 1, sec); c.Stats().Asks != asks+1 || !c.Gone() {
			t.Errorf("away %d: %d questions try whether the source is back", away, c.Stats().Asks-asks)
		}
		c.Grant(Key{}, 1, sec)
		if d := c.Take(Key{}, 1, sec); !d.Allowed || c.Gone() {
			t.Errorf("away %d: %+v when it is back", away, d)
		}
	}
}

// A key whose question failed asks as soon as the source is back.
func TestClusterBack(t *testing.T) {
	s, nodes := clusterOf(t, 1, 100, 100, AwayDeny)
	c := nodes[0]
	c.Take(key(1), 1, 0)
	c.Fail(key(1), 100*time.Millisecond, ms)
	c.Grant(key(2), 1, 2*ms)
	if c.Take(key(1), 1, 2*ms); s.asked != 2 {
		t.Fatalf("asked %d times", s.asked)
	}
}

// The state keeps what it was given, wherever the clock stands, and forgets it in time: a key that was idle is never kept from
// asking by what it was told long ago.
func TestStockState(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	rule := stockRule{limit: 100, batch: 10, credit: 5, good: 60, memory: 600}
	for range 20_000 {
		now := r.Int64() >> r.IntN(40)
		want := stock{balance: r.Int64N(2*stockMax) - stockMax}
		want.hush(now, r.Int64N(200*sec))
		state := want.state()
		if got := rule.at(state, now); got != want {
			t.Fatalf("at %d: %+v became %+v", now, want, got)
		}
		if got := rule.at(state, now-stockUnit*5); got.balance != want.balance {
			t.Fatalf("a clock that is a little behind: %+v became %+v", want, got)
		}
		if end := (want.stamp + want.quiet) * stockUnit; want.quiet > 0 && (rule.at(state, end-1).quiet == 0 || rule.at(state, end).quiet != 0) {
			t.Fatalf("%+v is not quiet until %d", want, end)
		}
		for _, idle := range []int64{5 * 60 * sec, 3600 * sec, 2 * 3600 * sec, 70 * 3600 * sec} {
			if got := rule.at(state, now+idle); got.balance != 0 || got.quiet != 0 {
				t.Fatalf("after %d s: %+v", idle/sec, got)
			}
		}
	}
}

// Loops take while answers come from elsewhere: nothing is admitted that was neither granted nor on credit.
func TestClusterRace(t *testing.T) {
	const takers = 3
	s, nodes := clusterOf(t, 1, 1000, 1000, AwayDeny)
	c := nodes[0]
	questions := make(chan question, 100)
	c.source = askFunc(func(key Key, tokens uint32, now int64) bool {
		select {
		case questions <- question{key: key, tokens: tokens, at: now}:
			return true
		default:
			return false
		}
	})
	var takes, grants sync.WaitGroup
	grants.Go(func() {
		for q := range questions {
			if n := min(q.tokens, s.bucket.Peek(q.key, 0, 0).Remaining); n > 0 {
				s.bucket.Take(q.key, n, 0)
				c.Grant(q.key, n, 0)
			} else {
				c.Empty(q.key, time.Second, 0)
			}
		}
	})
	var admitted [takers]int
	for n := range takers {
		takes.Go(func() {
			for range 20_000 {
				if c.Take(Key{}, 1, 0).Allowed {
					admitted[n]++
				}
			}
		})
	}
	takes.Wait()
	close(questions)
	grants.Wait()
	sum := admitted[0] + admitted[1] + admitted[2]
	if got := int(c.Stats().Granted); sum > got+50 || got > 1000 {
		t.Fatalf("%d admitted, %d granted of 1000", sum, got)
	}
}

// A part of the source fails and comes back by itself: the keys of the others are granted as before.
func TestClusterParts(t *testing.T) {
	asked := map[Key]int{}
	parts := partsOf{askFunc(func(key Key, _ uint32, _ int64) bool { asked[key]++; return true })}
	c, err := NewCluster(ClusterSpec{Limit: 1000, Period: time.Second, Away: AwayDeny, Capacity: 100}, parts)
	if err != nil {
		t.Fatal(err)
	}
	one, two, far := Key{Lo: 1}, Key{Lo: 2}, Key{Lo: MaxParts + 7}
	f := func(now int64, gone bool, want ...bool) {
		t.Helper()
		for i, key := range []Key{one, two, far} {
			if got := c.Take(key, 1, now).Allowed; got != want[i] || c.Peek(key, 1, now).Allowed != want[i] {
				t.Errorf("key %d is admitted: %t, want %t", key.Lo, got, want[i])
			}
		}
		if c.Gone() != gone {
			t.Errorf("gone %t", c.Gone())
		}
	}
	f(ms, false, true, true, true)
	c.Fail(one, 100*time.Millisecond, ms)
	f(2*ms, true, false, true, true)
	c.Fail(far, 100*time.Millisecond, 2*ms)
	f(3*ms, true, false, true, false)
	before := asked[one]
	if f(101*ms, true, false, true, false); asked[one] != before+1 {
		t.Errorf("a part that is away is tried %d times in its pause", asked[one]-before)
	}
	c.Grant(two, 1, 102*ms)
	f(102*ms, true, false, true, false)
	c.Grant(one, 5, 103*ms)
	f(103*ms, true, true, true, false)
	c.Empty(far, time.Millisecond, 104*ms)
	c.Empty(far, time.Millisecond, 104*ms)
	f(104*ms, false, true, true, true)
}

// partsOf has keys in the part that they name.
type partsOf struct{ askFunc }

func (partsOf) Part(key Key) int { return int(key.Lo) }

type askFunc func(Key, uint32, int64) bool

func (f askFunc) Part(Key) int { return 0 }

func (f askFunc) Ask(key Key, tokens uint32, now int64) bool { return f(key, tokens, now) }

func TestClusterRefusals(t *testing.T) {
	local := mustLimit(t, 0, Window{Limit: 1, Period: time.Second})
	good := ClusterSpec{Limit: 10, Period: time.Second, Local: local}
	source := askFunc(func(Key, uint32, int64) bool { return true })
	if _, err := NewCluster(good, source); err != nil {
		t.Fatal(err)
	}
	f := func(want string, source Source, change func(*ClusterSpec)) {
		t.Helper()
		s := good
		change(&s)
		if _, err := NewCluster(s, source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	f("limit 0", source, func(s *ClusterSpec) { s.Limit = 0 })
	f("limit", source, func(s *ClusterSpec) { s.Limit = stockMax })
	f("period", source, func(s *ClusterSpec) { s.Period = 0 })
	f("batch 11", source, func(s *ClusterSpec) { s.Batch = 11 })
	f("credit 11", source, func(s *ClusterSpec) { s.Credit = 11 })
	f("answer", source, func(s *ClusterSpec) { s.Answer = time.Hour })
	f("of its own", source, func(s *ClusterSpec) { s.Local = nil })
	f("no source", nil, func(*ClusterSpec) {})
}
