package admin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// upgrading serves a source that remembers what binary it was asked for.
func upgrading(t *testing.T, b Bind) (address string, asked *string) {
	t.Helper()
	asked = new(string)
	g := &gateway{}
	src := g.source()
	src.Upgrade = func(binary string, hurry bool) error {
		if *asked = binary; hurry {
			*asked += " in a hurry"
		}
		if binary == "/bad" {
			return errors.New("it does not start")
		}
		return nil
	}
	l, _, err := Listen(b)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(src, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-ended); err != nil {
			t.Error(err)
		}
		_ = l.Close()
	})
	if b.Path != "" {
		return "unix:" + b.Path, asked
	}
	return l.Addr().String(), asked
}

func TestUpgradeRequest(t *testing.T) {
	address, asked := upgrading(t, socket(t))
	c := Client{address}
	if err := c.Upgrade("/some where/sluice", false, true); err != nil || *asked != "/some where/sluice" {
		t.Errorf("%q, %v", *asked, err)
	}
	if err := c.Upgrade("", false, true); err != nil || *asked != "" {
		t.Errorf("%q, %v", *asked, err)
	}
	if err := c.Upgrade("/next", true, true); err != nil || *asked != "/next in a hurry" {
		t.Errorf("%q, %v", *asked, err)
	}
	var refused *Refusal
	if err := c.ask("POST", "/upgrade?hurry=maybe", nil, nil); !errors.As(err, &refused) || refused.Status != 400 {
		t.Error(err)
	}
	if err := c.Upgrade("/bad", false, true); !errors.As(err, &refused) || refused.Status != 422 || refused.Text != "it does not start" {
		t.Error(err)
	}
}

// Every user of the host can connect to a TCP address: who names a binary there would have it run as the gateway.
func TestUpgradeOverTCP(t *testing.T) {
	address, asked := upgrading(t, Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	c := Client{address}
	*asked = "nothing"
	var refused *Refusal
	if err := c.Upgrade("/tmp/mine", false, true); !errors.As(err, &refused) || refused.Status != 403 || *asked != "nothing" {
		t.Errorf("%q, %v", *asked, err)
	}
	if err := c.Upgrade("", false, true); err != nil || *asked != "" {
		t.Errorf("the binary that is there: %q, %v", *asked, err)
	}
}

// inherited gives what another process has of l.
func inherited(t *testing.T, l net.Listener) *os.File {
	t.Helper()
	fd, err := Copy(l)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inherited")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// The file of a unix socket stays while processes take it from one another, and goes with the last.
func TestInherit(t *testing.T) {
	b := socket(t)
	old, _, err := Listen(b)
	if err != nil {
		t.Fatal(err)
	}
	f := inherited(t, old)
	failed, err := Inherit(b, f)
	if err != nil {
		t.Fatal(err)
	}
	_ = failed.Close()
	next, err := Inherit(b, f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	Own(next, true)
	Own(old, false)
	_ = old.Close()
	c, err := net.Dial("unix", b.Path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = next.Close()
	if _, err := os.Lstat(b.Path); err == nil {
		t.Error("the file is left")
	}
}

func TestInheritRefuses(t *testing.T) {
	b := socket(t)
	l, _, err := Listen(b)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // at the end of a test
	f := inherited(t, l)
	for _, other := range []Bind{{Path: b.Path + "x"}, {Addr: netip.MustParseAddrPort("127.0.0.1:80")}} {
		if _, err := Inherit(other, f); err == nil || !strings.Contains(err.Error(), "it is bound to") {
			t.Errorf("%+v: %v", other, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // at the end of a test
	if _, err := Inherit(b, null); err == nil {
		t.Error("a file was taken for a socket")
	}
}

// Who is connected when another process takes the socket over is still answered.
func TestLeave(t *testing.T) {
	b := socket(t)
	l, _, err := Listen(b)
	if err != nil {
		t.Fatal(err)
	}
	f := inherited(t, l)
	s := NewServer((&gateway{}).source(), slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c, err := net.Dial("unix", b.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // at the end of a test
	for s.connected.Load() == 0 {
		time.Sleep(time.Millisecond) // until it is accepted
	}
	left := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		left <- s.Leave(ctx, l)
	}()
	if err := <-ended; err != nil { // it accepts no more
		t.Error(err)
	}
	if _, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(c); err != nil || !strings.HasPrefix(answer.String(), "HTTP/1.1 200 ") {
		t.Errorf("%q, %v", answer.String(), err)
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
	_ = f.Close()
}

func TestStatusOfUpgrades(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := Status{Upgrades: 2, Process: 3, ProcessStarted: now.Add(-5 * time.Second), Upgrade: &UpgradeStatus{At: now, Error: "no\x1b"},
		Older: &OlderStatus{PID: 41, Version: "v0\x1b", Process: 2, Generation: 7, Started: now.Add(-time.Hour), Connections: 3, Exchanges: 1, Tunnels: 2, Since: now.Add(-4 * time.Second), Until: now.Add(26 * time.Second)}}
	var out bytes.Buffer
	printStatus(&out, &s, now)
	for _, want := range []string{"upgrades\t2, this is process 3, up 5s, since 2026-01-02T03:04:00Z", `failed 2026-01-02T03:04:05Z: no\x1b`,
		`pid 41, version v0\x1b, process 2, generation 7, up 1h0m0s, drains since 4s, ends within 26s: 3 connections, 1 exchanges, 2 tunnels`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	// An older version tells neither its number nor its generation, and nobody tells anything before the drain begins.
	if got, want := (&OlderStatus{PID: 41, Version: "v0"}).text(now), "pid 41, version v0, does not drain yet"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestStatusOfCluster(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, c := range map[string]*ClusterStatus{
		"": nil,
		"cluster\tthere since 2026-01-02T03:04:05Z, 7 commands, 0 errors, last problem: -":              {Since: now, Commands: 7},
		"cluster\t1 of 3 shards away since 2026-01-02T03:04:05Z, 7 commands, 2 errors, last problem: -": {Since: now, Commands: 7, Errors: 2, Shards: 3, Missing: 1},
		`cluster	away since 2026-01-02T03:04:05Z, 0 commands, 1 errors, last problem: no\x1b`:           {Since: now, Away: true, Errors: 1, Problem: "no\x1b"},
	} {
		var out bytes.Buffer
		printStatus(&out, &Status{Cluster: c}, now)
		if !strings.Contains(out.String(), want) || c == nil && strings.Contains(out.String(), "cluster") {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
