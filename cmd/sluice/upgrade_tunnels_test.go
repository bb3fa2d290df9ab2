package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testUpgradeKeepsTunnels has tunnels outlive everything else in a process that was replaced: until an upgrade that is in a hurry ends them,
// or their own time.
func testUpgradeKeepsTunnels(t *testing.T, binaries [2]string) {
	const others, own = time.Second, 4 * time.Second
	s := newSite(t, binaries, "{ time: 1s, tunnels: 1h }")
	s.cut = true // by who is in a hurry
	c := &upgradeClient{addr: s.addr("http")}
	first := s.status().PID
	tunnel := openTunnel(t, c)
	next := func(version int, args ...string) {
		t.Helper()
		s.point(version)
		if told, err := s.upgrade(append([]string{"--wait"}, args...)...); err != nil {
			t.Fatalf("%s\n%s", told, s.log())
		}
		s.seen[s.status().PID] = true
	}
	next(1)
	s.onlyTunnels(1)
	if err := fresh(c); err != nil || s.status().PID == first {
		t.Errorf("a new connection: %v", err)
	}
	if got := echo(tunnel, "after the time"); got != "after the time" {
		t.Errorf("the tunnel says %q", got)
	}
	s.eventually("the tunnel is shown, and when it ends", func() bool {
		o := s.status().Older
		return o != nil && o.PID == first && o.Tunnels == 1 && o.Connections == 1 && o.Until.Sub(o.Since) == time.Hour
	})
	if told, err := s.upgrade("--wait"); err == nil || !strings.Contains(told, "1 tunnels") || !strings.Contains(told, "sluice upgrade --hurry") {
		t.Errorf("%q", told)
	}
	if got := echo(tunnel, "unharmed"); got != "unharmed" {
		t.Errorf("the tunnel says %q", got)
	}

	next(0, "--hurry")
	if got := echo(tunnel, "hurried"); got == "hurried" {
		t.Error("the tunnel has outlived a hurry")
	}
	s.eventually("the second process has ended", func() bool { return s.status().Older == nil })

	// Who is in a hurry while others still have their time waits for them.
	tunnel, streaming := openTunnel(t, c), &upgradeClient{addr: c.addr}
	rest := s.beginSlow(streaming)
	s.write(fmt.Sprintf("{ time: %v, tunnels: %v }", others, own), 2)
	next(1)
	hurried := make(chan error, 1)
	s.point(0)
	go func() {
		told, err := s.upgrade("--wait", "--hurry")
		if err != nil {
			err = errors.New(told)
		}
		hurried <- err
	}()
	rest()
	if err := <-hurried; err != nil {
		t.Fatalf("%v\n%s", err, s.log())
	}
	s.seen[s.status().PID] = true
	if got := echo(tunnel, "hurried"); got == "hurried" {
		t.Error("the tunnel has outlived a hurry")
	}
	s.eventually("the process between has ended", func() bool { return s.status().Older == nil })

	tunnel = openTunnel(t, c)
	begun := time.Now()
	next(1)
	s.onlyTunnels(2)
	if got := echo(tunnel, "after the time"); got != "after the time" {
		t.Errorf("the tunnel says %q", got)
	}
	accessLog := filepath.Join(s.folder, "access.log")
	if err := errors.Join(os.Rename(accessLog, accessLog+".1"), syscall.Kill(s.status().PID, syscall.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	if _, err := tunnel.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) < own {
		t.Errorf("the tunnel ended with %v after %v", err, time.Since(begun))
	}
	s.eventually("its process has ended", func() bool { return s.status().Older == nil })
	if text, err := os.ReadFile(accessLog); err != nil || !strings.Contains(string(text), "/socket") {
		t.Errorf("the tunnel's line is not in the new access log: %q, %v", text, err)
	}
	if !strings.Contains(s.log(), "the time for tunnels is over") {
		t.Error("the log does not say why")
	}
}

// onlyTunnels waits until so many processes have told that nothing else is left.
func (s *site) onlyTunnels(processes int) {
	s.t.Helper()
	s.eventually("nothing but tunnels is left", func() bool { return strings.Count(s.log(), "drained, but for tunnels") == processes })
}
