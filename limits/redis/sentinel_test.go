package redis

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/vacant"
	"github.com/sluice-gateway/sluice/limits"
)

// newSentinel starts one that watches master, under the name of limits.
func newSentinel(t *testing.T, master *server, quorum int) *server {
	t.Helper()
	_, port, _ := net.SplitHostPort(master.addr)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor limits 127.0.0.1 %s %d\nsentinel down-after-milliseconds limits 60000\nsentinel failover-timeout limits 2000\n", port, quorum)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	s.kill()
	_, port, _ = net.SplitHostPort(s.addr)
	s.args = []string{s.args[0], file, "--sentinel", "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir()}
	s.start()
	return s
}

// TestSentinel finds the master by sentinels that watch it. When it is killed, decisions are what is done without, until its replica is the
// master; what was used is known there.
func TestSentinel(t *testing.T) {
	master := newServer(t, "--repl-diskless-sync-delay", "0")
	_, port, _ := net.SplitHostPort(master.addr)
	replica := newServer(t, "--replicaof", "127.0.0.1 "+port)
	sentinel := newSentinel(t, master, 1)
	// The first of the sentinels is away, which is nothing to anybody.
	c := sentinel.client(func(s *Spec) {
		s.Addresses = []string{vacant.Address(t), sentinel.addr}
		s.Mode, s.Master, s.Timeout = Sentinel, "limits", time.Second
	})
	takesBoth(t, c)
	b := buckets(t, c, "counted", hourly(10, limits.FixedWindow), limits.Window{Algorithm: limits.FixedWindow, Limit: 10, Period: 24 * time.Hour})
	take := func() string { return text(c.Take([]*Buckets{b}, []limits.Ask{{Cost: 1}})) }
	for range 4 {
		take()
	}
	lease := buckets(t, c, "leased", limits.Window{Algorithm: limits.TokenBucket, Limit: 10000, Period: time.Second})
	leased, err := limits.NewCluster(limits.ClusterSpec{Limit: 10000, Period: time.Second, Batch: 1, Credit: 1, Capacity: 16, Away: limits.AwayDeny}, lease)
	if err != nil {
		t.Fatal(err)
	}
	lease.Serve(leased)
	granted := func(more uint64) func() bool {
		want := leased.Stats().Granted + more
		return func() bool {
			leased.Take(limits.Key{}, 1, wall())
			return leased.Stats().Granted >= want && !leased.Gone()
		}
	}
	await(t, granted(10), "nothing is leased")
	await(t, func() bool { return strings.Contains(replica.text("INFO", "replication"), "master_link_status:up") }, "the replica has no master")
	await(t, func() bool {
		found, err := sentinel.do("SENTINEL", "REPLICAS", "limits").ToArray()
		if err != nil || len(found) != 1 {
			return false
		}
		one, _ := found[0].AsStrMap()
		return one["flags"] == "slave" && one["master-link-status"] == "ok"
	}, "the sentinel does not find the replica")
	if n, err := master.do("WAIT", "1", "5000").AsInt64(); err != nil || n != 1 {
		t.Fatalf("the replica does not follow: %d, %v", n, err)
	}

	patient := func(ms string) { // only now: on a busy machine one that lives may be late
		if err := sentinel.do("SENTINEL", "SET", "limits", "down-after-milliseconds", ms).Error(); err != nil {
			t.Fatal(err)
		}
	}
	killed := time.Now()
	master.kill()
	patient("200")
	await(t, func() bool { take(); return c.Away() }, "the circuit does not open")
	if got := take(); got != ErrAway.Error() {
		t.Errorf("while there is no master: %s", got)
	}
	await(t, func() bool { leased.Take(limits.Key{}, 1, wall()); return leased.Gone() }, "a lease does not learn that there is no master")
	await(t, func() bool { return !c.Away() }, "the new master is not found")
	patient("60000")
	t.Logf("there was no master for %v", time.Since(killed))
	left := 0
	for strings.HasPrefix(take(), "true") {
		left++
	}
	if left > 6 || left < 5 { // one may have been taken of the old master, and lost with it
		t.Errorf("the new master admits %d more of 10 of which 4 were used", left)
	}
	await(t, granted(10), "nothing is leased from the new master")

	// The old one comes back, and takes itself for the master until the sentinels tell it otherwise.
	master.start()
	for range 300 {
		if got := take(); !strings.HasPrefix(got, "false level 0 window 0: 0 of 10") {
			t.Fatalf("when the old master is back: %s", got)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
