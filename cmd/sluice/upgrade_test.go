package main

import (
	"bufio"
	cryptotls "crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// upgradesVariable sets how many upgrades are made under load, such as 20; ten reloads go with each.
const upgradesVariable = "SLUICE_UPGRADES"

const (
	upgradesDefault    = 4
	reloadsPerUpgrade  = 10
	descriptorSlack    = 12      // connections to the upstream that are idle at one look and not at the other
	residentSlackKiB   = 8 << 10 // of the garbage collector
	residentSlackShare = 1.25
)

func upgradesToMake(t *testing.T) int {
	t.Helper()
	text := os.Getenv(upgradesVariable)
	if text == "" {
		return upgradesDefault
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of upgrades", upgradesVariable, text)
	}
	return n
}

// TestUpgrade runs two versions of the gateway as processes, of which one takes the other's place.
func TestUpgrade(t *testing.T) {
	binaries := buildVersions(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, binaries [2]string)
	}{
		{"load", testUpgradeLoad},
		{"sessions", testUpgradeKeepsSessions},
		{"health", testUpgradeKeepsHealth},
		{"fails", testUpgradeFails},
		{"port", testPrivilegedPort},
		{"drain", testUpgradeDuringDrain},
		{"tunnels", testUpgradeKeepsTunnels},
		{"pinned", testPinned},
		{"hangs", testUpgradeHangs},
		{"environment", testUpgradeEnvironment},
		{"added", testUpgradeAddsListeners},
		{"systemd", testUpgradeUnderSystemd},
		{"successor", testSuccessorDies},
		{"networks", testUpgradeNetworks},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, binaries) })
	}
}

// testUpgradeLoad replaces the gateway's process again and again, with reloads in between and a number of loops that changes, under
// clients of every kind: none fails, no request is lost from the metrics, and nothing piles up.
func testUpgradeLoad(t *testing.T, binaries [2]string) {
	n := upgradesToMake(t)
	s := newSite(t, binaries, "10s")
	plain, secure := s.addr("http"), s.addr("https")
	h1, h2 := s.tls.Clone(), s.tls.Clone()
	h1.NextProtos, h2.NextProtos = []string{"http/1.1"}, []string{"h2"}
	clients := []*upgradeClient{
		{name: "kept", addr: plain, once: kept}, {name: "kept TLS", addr: secure, tls: h1, once: kept},
		{name: "fresh", addr: plain, once: fresh}, {name: "fresh TLS", addr: secure, tls: h1, once: fresh},
		{name: "unix", addr: filepath.Join(s.folder, "http.sock"), once: fresh},
		{name: "HTTP/2", addr: plain, once: multiplexed}, {name: "HTTP/2 TLS", addr: secure, tls: h2, once: multiplexed},
		{name: "socket", addr: plain, once: socket}, {name: "socket TLS", addr: secure, tls: h1, once: socket},
	}
	var stop atomic.Bool
	var work sync.WaitGroup
	for _, c := range clients {
		if strings.HasPrefix(c.name, "HTTP/2") {
			defer c.newMultiplexed()()
		}
		work.Go(func() {
			if err := c.run(&stop); err != nil {
				t.Error(err)
			}
		})
	}
	defer work.Wait() // before what the test began is ended
	defer stop.Store(true)
	base := [2]int{}
	versions := [2]string{"one", "two"}
	for i := 1; i <= n && !t.Failed(); i++ {
		loops := 1 + i%3
		s.write("10s", loops)
		s.point(i % 2)
		now := s.upgraded([]string{"command", "signal"}[i%2])
		if now.Version != versions[i%2] || now.Upgrades != i || len(now.Loops) != loops {
			t.Fatalf("upgrade %d: version %s, %d upgrades, %d loops\n%s", i, now.Version, now.Upgrades, len(now.Loops), s.log())
		}
		for range reloadsPerUpgrade {
			if err := s.admin.Reload(true); err != nil {
				t.Fatal(err)
			}
		}
		if s.addr("http") != plain {
			t.Fatalf("the address has changed to %s", s.addr("http"))
		}
		fds, rss := resources(t, now.PID)
		t.Logf("upgrade %d: %d loops, %d descriptors, %d KiB", i, loops, fds, rss)
		switch {
		case i == 1 || loops == 3 && i <= 3: // the first with all that it has is the measure of the others
			base = [2]int{max(base[0], fds), max(base[1], rss)}
		case fds > base[0]+descriptorSlack:
			t.Errorf("%d descriptors, had %d", fds, base[0])
		case float64(rss) > residentSlackShare*float64(base[1])+residentSlackKiB:
			t.Errorf("%d KiB, had %d", rss, base[1])
		}
	}
	stop.Store(true)
	work.Wait()
	s.counted(clients)
	if st := s.status(); st.Generation != 1+n*(1+reloadsPerUpgrade) {
		t.Errorf("generation %d after %d upgrades and %d reloads each", st.Generation, n, reloadsPerUpgrade)
	}
}

// counted compares what clients have made with what the metrics say after all upgrades.
func (s *site) counted(clients []*upgradeClient) {
	s.t.Helper()
	made := int64(0)
	for _, c := range clients {
		if c.made.Load() == 0 {
			s.t.Errorf("%s has made no exchange", c.name)
		}
		if c.name == "kept" && c.ended == 0 {
			s.t.Error("no kept connection was announced to end: the upgrades have not met it")
		}
		made += c.made.Load()
		s.t.Logf("%s: %d", c.name, c.made.Load())
	}
	s.eventually("the metrics show "+strconv.FormatInt(made, 10)+" requests", func() bool {
		text, err := s.admin.Metrics()
		sum, _ := sumSeries(string(text), "sluice_requests_total", "")
		return err == nil && int64(sum) == made
	})
}

// testUpgradeKeepsSessions resumes a session of TLS at a process that has not made it, whose keys of identity tokens are the same, too.
func testUpgradeKeepsSessions(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "2s")
	config := s.tls.Clone()
	config.ClientSessionCache, config.NextProtos = cryptotls.NewLRUClientSessionCache(1), []string{"http/1.1"}
	resumed := func() bool {
		c := &upgradeClient{addr: s.addr("https"), tls: config}
		conn, err := c.dial()
		if err != nil {
			t.Fatal(err)
		}
		c.conn, c.read = conn, bufio.NewReader(conn)
		if err := fresh(c); err != nil { // reads the ticket, too
			t.Fatal(err)
		}
		return conn.(*cryptotls.Conn).ConnectionState().DidResume
	}
	if resumed() {
		t.Fatal("a first session was resumed")
	}
	keys, err := s.admin.SigningKeys()
	if err != nil || len(keys) != 2 {
		t.Fatalf("%+v, %v", keys, err)
	}
	s.point(1)
	s.upgraded("command")
	if !resumed() {
		t.Error("the session was not resumed")
	}
	if now, err := s.admin.SigningKeys(); err != nil || !slices.Equal(now, keys) {
		t.Errorf("the keys of identity tokens are %+v, were %+v: %v", now, keys, err)
	}
}
