package server

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/vacant"
)

// passedTo is a gateway that passes db.test through to upstream u, which is as more says.
func passedTo(t *testing.T, endpoints, more string) *running {
	t.Helper()
	return run(t, fmt.Sprintf(`
loops: 1
access_log: { to: FOLDER/access.log }
listeners: { http: { bind: "127.0.0.1:0", tls: passthrough } }
upstreams:
  u: { endpoints: [%s]%s }
routes: [{ match: db.test, passthrough: u }]
`, endpoints, more))
}

// newFullListener is the address of a listener that accepts nothing, and whose backlog is full.
func newFullListener(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // until none comes about any more
		c, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return ln.Addr().String()
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the backlog does not get full")
	return ""
}

// serveTLS ends TLS on a listener's connections and gives back what it gets, until the listener is closed.
func serveTLS(ln net.Listener, config *cryptotls.Config) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer func() { _ = c.Close() }()
			secured := cryptotls.Server(c, config)
			_, _ = io.Copy(secured, secured)
			_ = secured.CloseWrite()
		})
	}
}

// passes says how many of n handshakes come about.
func (g *running) passes(a *authority, n int) (good int) {
	for range n {
		c, err := g.passed(a, "db.test")
		if err != nil {
			continue
		}
		if echoed(c, 10) == nil {
			good++
		}
		_ = c.Close()
	}
	return good
}

// reasons are those of the access log's lines, in order, once there are n; "" stands for none.
func (g *running) reasons(n int) (list []string) {
	g.t.Helper()
	g.eventually("all passages are logged", func() bool {
		text, _ := os.ReadFile(filepath.Join(g.folder, "access.log"))
		list = nil
		for line := range strings.Lines(string(text)) {
			_, after, _ := strings.Cut(line, `"reason":"`)
			reason, _, _ := strings.Cut(after, `"`)
			list = append(list, reason)
		}
		return len(list) >= n
	})
	return list
}

// A passage whose endpoint takes no connection goes to another, as retries allow; the endpoint is ejected for it.
func TestPassthroughEjects(t *testing.T) {
	a := newAuthority(t)
	up := newEnds(t, a, "db.test")
	dead := vacant.Address(t)
	both := fmt.Sprintf("%q, %q", dead, up.addr)
	const outlier = ", outlier: { consecutive_5xx: 3, interval: 100ms, base_ejection_time: 1m, max_ejection_percent: 100% }"

	g := passedTo(t, both, outlier)
	if good := g.passes(a, 12); good != 12 {
		t.Errorf("%d of 12 came about", good)
	}
	g.eventually("the dead one is ejected", func() bool { return slices.Contains(g.flags(dead), "ejected") })
	if n := g.metric(`sluice_retries_by_cause_total{upstream="u",cause="connect"}`); n == "" || n == "0" {
		t.Errorf("%q went to another endpoint", n)
	}
	before := g.metric(`sluice_retries_by_cause_total{upstream="u",cause="connect"}`)
	if good := g.passes(a, 6); good != 6 {
		t.Errorf("%d of 6 came about with one endpoint ejected", good)
	}
	if after := g.metric(`sluice_retries_by_cause_total{upstream="u",cause="connect"}`); after != before {
		t.Errorf("the ejected one was tried: %s, then %s", before, after)
	}
	g.stop()

	for _, more := range []string{", retry: { attempts: 1 }", ", retry: { on: reset }", ", pool: { max_retries: 1 }, retry: { attempts: 2, on: connect }"} {
		g := passedTo(t, both, more)
		want := 5
		if strings.Contains(more, "max_retries") { // of which one at a time is enough
			want = 10
		}
		if good := g.passes(a, 10); good != want {
			t.Errorf("%s: %d of 10 came about, want %d", more, good, want)
		}
		g.stop()
	}
}

// A connection in time is what an endpoint owes a passage: one that takes none for as long as the upstream waits is ejected as one that refuses.
func TestPassthroughTimesOut(t *testing.T) {
	a := newAuthority(t)
	up := newEnds(t, a, "db.test")
	full := newFullListener(t)
	g := passedTo(t, fmt.Sprintf("%q, %q", full, up.addr),
		", timeouts: { connect: 50ms }, outlier: { consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100%, consecutive_5xx: 100, interval: 100ms, base_ejection_time: 1m, max_ejection_percent: 100% }")
	if good := g.passes(a, 8); good != 8 {
		t.Errorf("%d of 8 came about", good)
	}
	g.eventually("it is ejected", func() bool { return slices.Contains(g.flags(full), "ejected") })
}

// Passages that get no connection open the upstream's breaker, which then refuses them at once. One that gets through as a probe closes it.
func TestPassthroughBreaker(t *testing.T) {
	a := newAuthority(t)
	addr := vacant.Address(t)
	for name, breaker := range map[string]string{
		"consecutive": "{ errors: off, consecutive: 3, cooldown: 300ms, growth: 1, probes: 1 }",
		"ratio":       "{ errors: 50%, window: 10s, min_requests: 3, cooldown: 300ms, growth: 1, probes: 1 }",
	} {
		t.Run(name, func(t *testing.T) {
			g := passedTo(t, fmt.Sprintf("%q", addr), ", breaker: "+breaker)
			if good := g.passes(a, 4); good != 0 {
				t.Errorf("%d passages with nobody came about", good)
			}
			if got, want := g.reasons(4), []string{"connect_failed", "connect_failed", "connect_failed", "breaker_open"}; !slices.Equal(got, want) {
				t.Errorf("reasons %q, want %q", got, want)
			}
			if n := g.metric(`sluice_rejects_total{reason="breaker_open",side="upstream"}`); n != "1" {
				t.Errorf("%q refusals are counted", n)
			}
			if b := g.breaker(); b.State != "open" || b.Refused != 1 {
				t.Errorf("%+v", b)
			}
			ln, err := net.Listen("tcp", addr)
			a.must(err)
			pair, err := cryptotls.X509KeyPair(a.issue(false, "db.test"))
			a.must(err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				serveTLS(ln, &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}})
			}()
			time.Sleep(350 * time.Millisecond) // the cooldown
			if good := g.passes(a, 3); good != 3 {
				t.Errorf("%d of 3 came about", good)
			}
			if b := g.breaker(); b.State != "closed" || b.Refused != 1 {
				t.Errorf("after a probe: %+v", b)
			}
			g.stop()
			_ = ln.Close()
			<-done
		})
	}
}

// While its upstream's breaker is open a passage goes to the upstream that stands in. An answer that stands in is none for a passage.
func TestPassthroughStandIn(t *testing.T) {
	a := newAuthority(t)
	up := newEnds(t, a, "db.test")
	g := passedTo(t, fmt.Sprintf("%q", vacant.Address(t)), fmt.Sprintf(`, breaker: { errors: off, consecutive: 2, cooldown: 1m, fallback: { to: v } } }
  v: { endpoints: [%q]`, up.addr))
	if good := g.passes(a, 6); good != 4 {
		t.Errorf("%d of 6 came about", good)
	}
	if b := g.breaker(); b.Refused != 4 || b.Fallbacks != 4 {
		t.Errorf("%+v", b)
	}
	g.stop()
	g = passedTo(t, fmt.Sprintf("%q", vacant.Address(t)), ", breaker: { errors: off, consecutive: 2, cooldown: 1m, fallback: { respond: { status: 200 } } }")
	if good := g.passes(a, 3); good != 0 {
		t.Errorf("%d of 3 came about", good)
	}
	if got := g.reasons(3); got[2] != "breaker_open" {
		t.Errorf("reasons %q", got)
	}
}
