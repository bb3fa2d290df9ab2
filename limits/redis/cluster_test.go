package redis

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/vacant"
	"github.com/sluice-gateway/sluice/limits"
)

// newCluster starts n masters that share the slots, and go on when one of them does not.
func newCluster(t *testing.T, n int) (nodes []*server) {
	t.Helper()
	for i := range n {
		_, bus, _ := net.SplitHostPort(vacant.Address(t))
		s := newServer(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "500", "--cluster-require-full-coverage", "no")
		nodes = append(nodes, s)
		if err := s.do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(slots*i/n), strconv.Itoa(slots*(i+1)/n-1)).Error(); err != nil {
			t.Skipf("this Redis gives no slots: %v", err)
		}
		if i > 0 {
			_, port, _ := net.SplitHostPort(s.addr)
			if err := nodes[0].do("CLUSTER", "MEET", "127.0.0.1", port, bus).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range nodes {
		s.await(func() bool {
			info := s.text("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_assigned:16384")
		}, "the cluster is never ready")
	}
	return nodes
}

// TestRedisCluster has keys on all nodes of a cluster, and those of one decision on one of them.
func TestRedisCluster(t *testing.T) {
	nodes := newCluster(t, 3)
	c := nodes[1].client(func(s *Spec) { s.Mode, s.Timeout = Cluster, time.Second })
	await(t, func() bool { return c.Status().Shards == 3 }, "the shards are not known")
	for range 2 { // the first time the nodes do not know the script
		b, err := c.Buckets(BucketSpec{Policy: "spread", Name: "x", Windows: []limits.Window{hourly(2, limits.FixedWindow)}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(200) {
			key := limits.Key{Hi: i * 7919, Lo: i}
			if d, err := c.Take([]*Buckets{b}, []limits.Ask{{Key: key, Cost: 1}}); err != nil || !d.Allowed {
				t.Fatalf("%d: %s", i, text(d, err))
			}
		}
	}
	keys := 0
	for i, s := range nodes {
		n, err := s.do("DBSIZE").AsInt64()
		if err != nil || n < 30 {
			t.Errorf("node %d has %d keys of 200, %v", i, n, err)
		}
		keys += int(n)
	}
	if keys != 200 {
		t.Errorf("they have %d keys, want 200", keys)
	}
	takesBoth(t, c)
	for _, together := range []bool{false, true} {
		b, err := c.Buckets(BucketSpec{Policy: "p", Name: fmt.Sprint(together), Together: together, Windows: []limits.Window{hourly(2, limits.FixedWindow)}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(20) {
			key := limits.Key{Hi: ^i * 104729, Lo: i << 40}
			want, err := nodes[0].do("CLUSTER", "KEYSLOT", b.name(key)).AsInt64()
			if err != nil || b.slot(key) != int(want) {
				t.Errorf("%s is taken to be in slot %d, Redis says %d, %v", b.name(key), b.slot(key), want, err)
			}
		}
	}
	a, b := buckets(t, c, "a", hourly(1, limits.FixedWindow)), &Buckets{}
	if b, _ = c.Buckets(BucketSpec{Policy: "elsewhere", Name: "b", Windows: []limits.Window{hourly(1, limits.FixedWindow)}}); b == nil {
		t.Fatal("no buckets")
	}
	if _, err := c.Take([]*Buckets{a, b}, []limits.Ask{{Cost: 1}, {Cost: 1}}); !errors.Is(err, ErrApart) {
		t.Errorf("of buckets of two nodes: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() { a.Ask(limits.Key{}, 0, 0); b.Part(limits.Key{}) }); n > 0 {
		t.Errorf("a question takes %v allocations", n)
	}
}

// TestShardAway kills one of three nodes, has it back, and stops another: its keys alone are decided on without it, and nobody who asks for
// others waits for it.
func TestShardAway(t *testing.T) {
	nodes := newCluster(t, 3)
	c := nodes[0].client(func(s *Spec) { s.Mode, s.Timeout = Cluster, time.Second })
	await(t, func() bool { return c.Status().Shards == 3 }, "the shards are not known")
	const keys = 60
	b, err := c.Buckets(BucketSpec{Policy: t.Name(), Name: "b", Windows: []limits.Window{hourly(1<<30, limits.TokenBucket)}})
	if err != nil {
		t.Fatal(err)
	}
	leased, err := limits.NewCluster(limits.ClusterSpec{Limit: 1 << 16, Period: time.Second, Batch: 1, Credit: 1, Capacity: 1024, Away: limits.AwayDeny}, b)
	if err != nil {
		t.Fatal(err)
	}
	b.Serve(leased)
	key := func(i int) limits.Key { return limits.Key{Hi: uint64(i) * 7919, Lo: uint64(i)} }
	shard := func(i int) int { return b.slot(key(i)) * 3 / slots }
	var dead, strict, alone, late atomic.Int64
	var failed [3]atomic.Int64
	var stop atomic.Bool
	var done sync.WaitGroup
	dead.Store(-1)
	for i := range keys {
		done.Go(func() {
			for !stop.Load() {
				start := time.Now()
				_, err := c.Take([]*Buckets{b}, []limits.Ask{{Key: key(i), Cost: 1}})
				switch {
				case errors.Is(err, ErrAway):
					alone.Add(1)
				case err == nil:
					strict.Add(1)
				}
				if err != nil {
					failed[shard(i)].Add(1)
				}
				if shard(i) != int(dead.Load()) && time.Since(start) > 700*time.Millisecond {
					late.Add(1)
				}
				leased.Take(key(i), 1, wall())
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	defer func() { stop.Store(true); done.Wait() }()
	leases := func(want bool, of int) bool {
		for i := range keys {
			if shard(i) == of && leased.Peek(key(i), 0, wall()).Allowed != want {
				return false
			}
		}
		return true
	}
	for _, step := range []struct {
		name       string
		node       int
		away, back func()
	}{{"killed", 1, nodes[1].kill, nodes[1].start}, {"stopped", 2, nodes[2].pause, nodes[2].resume}} {
		dead.Store(int64(step.node))
		step.away()
		await(t, func() bool { return c.Status().Missing == 1 }, step.name+": it is not away")
		await(t, func() bool { return leases(false, step.node) }, step.name+": its keys are leased without it")
		before, without := strict.Load(), alone.Load()
		time.Sleep(700 * time.Millisecond) // the other nodes find out in the meantime, and say so
		for i := range 3 {
			if n := failed[i].Swap(0); (n > 0) != (i == step.node) {
				t.Errorf("%s: of the keys of node %d %d could not be decided on; away is node %d", step.name, i, n, step.node)
			}
			if i != step.node && !leases(true, i) {
				t.Errorf("%s: keys of node %d are not leased", step.name, i)
			}
		}
		if s := c.Status(); s.Away || s.Missing != 1 || s.Shards != 3 || s.Problem == "" {
			t.Errorf("%s: %+v", step.name, s)
		}
		if strict.Load()-before < 300 || alone.Load() == without {
			t.Errorf("%s: %d were decided on, %d without", step.name, strict.Load()-before, alone.Load()-without)
		}
		step.back()
		await(t, func() bool { return c.Status().Missing == 0 && leases(true, step.node) }, step.name+": it does not come back")
		time.Sleep(50 * time.Millisecond) // what was under way
		for i := range failed {
			failed[i].Store(0)
		}
	}
	// Whoever is held up by the node that is stopped waits for the timeout, and so do all the others at that time. One that the machine keeps
	// waiting says nothing.
	if late.Load() >= keys/3 {
		t.Errorf("%d times somebody waited for a node that was there", late.Load())
	}
	t.Logf("%d were decided on by Redis, %d not; %d waited long for a node that was there; %+v", strict.Load(), alone.Load(), late.Load(), c.Status())
}
