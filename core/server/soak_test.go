package server

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/leak"
)

// soakVariable sets for how long TestSoak and TestSoakTLS run, such as 60s. Others take a part of that.
const soakVariable = "SLUICE_SOAK"

const (
	soakDefault = 5 * time.Second
	// soakReload is how long a configuration is in force. It is short so that a reload meets every state of an exchange.
	soakReload = 200 * time.Millisecond
	soakUpload = 600 << 10 // the most that is uploaded at once: many times what a loop's buffer holds
)

// soakConfigs are put in force in turn. What differs: endpoints that come and go, a listener and an upstream that do,
// routes, limits and forwarding.
func soakConfigs(a, b string) []string {
	first := `
loops: 2
access_log: { to: "FOLDER/access.log" }
listeners:
  http: { bind: "127.0.0.1:0" }
upstreams:
  both: { endpoints: ["A", "B"], pool: { max_connections: 6, queue_timeout: 10s } }
routes:
  - { match: "/*", to: both }
`
	second := `
loops: 2
access_log: { to: "FOLDER/other.log", sample: 0.5 }
listeners:
  http: { bind: "127.0.0.1:0", forward: { via: edge, forwarded: true } }
  extra: { bind: "unix:FOLDER/extra.sock" }
upstreams:
  both: { endpoints: ["A"], pool: { max_connections: 8, queue_timeout: 10s } }
  other: { endpoints: ["B"] }
routes:
  - { match: "POST /*", to: { both: 1, other: 1 } }
  - { match: "/nowhere", respond: { status: 204 } }
  - { match: "/*", to: other }
`
	third := strings.Replace(first, `["A", "B"]`, `["B"]`, 1)
	r := strings.NewReplacer("A", a, "B", b)
	return []string{r.Replace(first), r.Replace(second), r.Replace(third)}
}

// sumUpstream answers with the length and sum of the body it gets, and the path.
type sumUpstream struct {
	server http.Server
	addr   string
	open   atomic.Int64
	served atomic.Int64
}

func newSumUpstream(t testing.TB) *sumUpstream {
	t.Helper()
	u := &sumUpstream{}
	u.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the gateway has closed: the client will tell
		}
		u.served.Add(1)
		_, _ = fmt.Fprintf(w, "%s %d %08x", r.URL.Path, len(body), crc32.ChecksumIEEE(body))
	})
	u.server.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			u.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			u.open.Add(-1)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = u.server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = u.server.Close()
		<-done
	})
	return u
}

// soakClient makes requests without ever repeating one: what net/http would mend silently is a failure here.
type soakClient struct {
	addr      string
	keepAlive bool
	upload    bool
	rand      *rand.Rand
	made      int

	conn   net.Conn
	reader *bufio.Reader
}

func (c *soakClient) run(until time.Time) error {
	defer c.hangUp()
	for time.Now().Before(until) {
		if err := c.request(); err != nil {
			return fmt.Errorf("request %d (keep-alive %v, upload %v): %w", c.made, c.keepAlive, c.upload, err)
		}
		c.made++
	}
	return nil
}

func (c *soakClient) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *soakClient) request() error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	req, want := c.next()
	if err := req.Write(c.conn); err != nil {
		return fmt.Errorf("cannot send: %w", err)
	}
	res, err := http.ReadResponse(c.reader, req)
	if err != nil {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the body: %w", err)
	case res.StatusCode != 200 || string(body) != want:
		return fmt.Errorf("%s %q, want %q", res.Status, body, want)
	case c.keepAlive && res.Close:
		return errors.New("the gateway ends a connection that could be kept")
	case !c.keepAlive:
		c.hangUp()
	}
	return nil
}

// next gives a request and the body of its answer. Of two uploads one is sent in chunks.
func (c *soakClient) next() (*http.Request, string) {
	path := fmt.Sprintf("/soak/%d", c.made)
	if !c.upload {
		req, _ := http.NewRequest("GET", "http://"+c.addr+path, nil)
		req.Close = !c.keepAlive
		return req, path + " 0 00000000"
	}
	body := make([]byte, c.rand.IntN(soakUpload))
	for i := range body {
		body[i] = byte(c.rand.Uint32())
	}
	req, _ := http.NewRequest("POST", "http://"+c.addr+path, strings.NewReader(string(body)))
	if c.made%2 == 1 {
		req.ContentLength = -1
	}
	req.Close = !c.keepAlive
	return req, fmt.Sprintf("%s %d %08x", path, len(body), crc32.ChecksumIEEE(body))
}

// TestSoak reloads different configurations again and again under load: no request fails, and when the gateway has ended
// nothing is left of it, here or at the upstreams.
func TestSoak(t *testing.T) {
	length := soakTime(t)
	a, b := newSumUpstream(t), newSumUpstream(t)
	configs := soakConfigs(a.addr, b.addr)
	before := leak.Look()
	g := run(t, configs[0])

	until := time.Now().Add(length)
	var clients []*soakClient
	var work sync.WaitGroup
	for i := range 8 {
		c := &soakClient{addr: g.addr, keepAlive: i%4 != 0, upload: i%2 == 1, rand: rand.New(rand.NewPCG(1, uint64(i)))}
		if i == 7 {
			c.keepAlive = false // an upload on a connection of its own
		}
		clients = append(clients, c)
		work.Go(func() {
			if err := c.run(until); err != nil {
				t.Error(err)
			}
		})
	}
	reloads := g.reloadUntil(until, configs)
	work.Wait()

	total := 0
	for i, c := range clients {
		if c.made == 0 {
			t.Errorf("client %d has made no request", i)
		}
		total += c.made
	}
	if s := g.status(); s.Generation != reloads+1 {
		t.Errorf("generation %d after %d reloads", s.Generation, reloads)
	}
	if n := a.served.Load() + b.served.Load(); n != int64(total) || a.served.Load() == 0 || b.served.Load() == 0 {
		t.Errorf("the upstreams have served %d and %d of %d requests", a.served.Load(), b.served.Load(), total)
	}
	t.Logf("%d requests, %d reloads", total, reloads)
	g.stop()
	for _, bad := range []string{"level=ERROR", "panic", "drain ended"} {
		if strings.Contains(g.log.String(), bad) {
			t.Errorf("%q in the log:\n%s", bad, g.log)
		}
	}
	if left := before.Left(patience); left != "" {
		t.Errorf("after its end the gateway has left %s", left)
	}
	if n := a.open.Load() + b.open.Load(); n != 0 {
		t.Errorf("%d upstream connections are open after the end", n)
	}
}

// reloadUntil puts one configuration after the other in force, by the admin API or, every third time, by a signal.
func (g *running) reloadUntil(until time.Time, configs []string) (reloads int) {
	tick := time.NewTicker(soakReload)
	defer tick.Stop()
	for <-tick.C; time.Now().Before(until); <-tick.C {
		reloads++
		g.write(configs[reloads%len(configs)])
		if reloads%3 != 0 {
			if err := g.admin.Reload(true); err != nil {
				g.t.Errorf("reload %d: %v", reloads, err)
			}
			continue
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			g.t.Error(err)
		}
		for deadline := time.Now().Add(patience); g.status().Generation != reloads+1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				g.t.Fatalf("the gateway does not heed SIGHUP\n%s", g.log)
			}
		}
	}
	return reloads
}

// soakTime is how long a whole soak runs.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(soakVariable)
	if text == "" {
		return soakDefault
	}
	length, err := time.ParseDuration(text)
	if err != nil || length <= 0 {
		t.Fatalf("%s=%q is no duration", soakVariable, text)
	}
	return length
}
