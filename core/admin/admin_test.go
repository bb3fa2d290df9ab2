package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain fails if a test leaves a goroutine behind, the one that fasthttp keeps for its clock aside.
func TestMain(m *testing.M) {
	code := m.Run()
	ours := func() (left []string) {
		b := make([]byte, 1<<20)
		for _, g := range strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n") {
			if strings.Contains(g, "core/admin.") && !strings.Contains(g, "TestMain") || strings.Contains(g, "serveConn") {
				left = append(left, g)
			}
		}
		return left
	}
	for i := 0; len(ours()) > 0 && i < 100; i++ {
		time.Sleep(20 * time.Millisecond)
	}
	if left := ours(); len(left) > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "%d goroutines were left behind:\n%s\n", len(left), strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// gateway is a source whose answers a test can change.
type gateway struct {
	mu       sync.Mutex
	ready    error
	refuse   error
	level    string
	debugged []string
	set      SetEndpoints // the last
	reloads  atomic.Int32
	hold     chan struct{} // nil: a reload does not wait
}

func (g *gateway) source() Source {
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Source{
		Status: func() Status {
			return Status{State: "serving", Version: "v1", Go: "go1.26", PID: 42, Started: started, ConfigFile: "/etc/sluice.yaml", Generation: 3,
				Reload:    &ReloadStatus{At: started, Error: "sluice.yaml:1:2: no", Reason: "config"},
				Loops:     []LoopStatus{{Index: 0, Exchanges: 7}, {Index: 1, Stalled: true}},
				Listeners: []ListenerStatus{{Name: "http", Binds: []string{":80", "unix:/x"}, Connections: 5, Accepted: 9}}}
		},
		Config: func() []byte { return []byte("routes: []\n") },
		Routes: func() []RouteStatus { return nil },
		Keys: func() []KeysStatus {
			return []KeysStatus{{Place: "https://id.example.com/keys", Keys: 2, IDs: []string{"k1\x1b"}, Fetched: started, Problem: "no answer"}}
		},
		Certs: func() []CertificateStatus {
			return []CertificateStatus{
				{Listener: "https", File: "a.pem", Names: []string{"evil\x1b[2J"}, Key: "ECDSA P-256", NotAfter: time.Now().Add(49 * time.Hour)},
				{Listener: "https", Source: "file", File: "b.pem", Problem: "cannot read", Staple: &StapleStatus{State: "failed", Problem: "no answer\x1b"}},
				{Listener: "https", Source: "acme", Names: []string{"www.example.com"}, Next: started},
			}
		},
		Upstreams: func() []UpstreamStatus {
			return []UpstreamStatus{{Name: "a", Balance: "round_robin", Pending: 2, Endpoints: []EndpointStatus{{Address: "127.0.0.1:1", Name: "evil\x1b[2J", Weight: 1, Open: 4, Idle: 3}}}, {Name: "empty"}}
		},
		Limits: func() []LimitStatus {
			return []LimitStatus{{Policy: "few", Kind: "rate_limit", Levels: []LevelStatus{{Level: "ip", Limit: "5/s", Allowed: 11, Misses: 7}},
				Refused: []RefusedKey{{Key: "ip=evil\x1b[2J", Count: 3}}}}
		},
		Limit: func(policy string, key []string) ([]KeyStatus, error) {
			if policy != "few" {
				return nil, errors.New("no such policy")
			}
			return []KeyStatus{{Level: strings.Join(key, "|"), Limit: "5/s", Remaining: 2, Reset: time.Second}}, nil
		},
		ResetLimit: func(policy string, key []string) error {
			if policy != "few" || len(key) != 1 || key[0] != "a b&c" {
				return fmt.Errorf("cannot reset %q of %q", key, policy)
			}
			return nil
		},
		Metrics: func(w io.Writer) error { _, err := io.WriteString(w, "sluice_up 1\n"); return err },
		Ready:   func() error { g.mu.Lock(); defer g.mu.Unlock(); return g.ready },
		LogLevel: func() (string, []string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.level, g.debugged
		},
		SetLogLevel: func(route, level string) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			if level != "debug" {
				return fmt.Errorf("unknown log level %q", level)
			}
			if route == "" {
				g.level = level
			} else {
				g.debugged = append(g.debugged, route)
			}
			return nil
		},
		SetEndpoints: func(set SetEndpoints) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			if set.Upstream != "a" {
				return fmt.Errorf("there is no upstream %q", set.Upstream)
			}
			g.set = set
			return nil
		},
		Reload: func() error {
			if g.hold != nil {
				<-g.hold
			}
			g.reloads.Add(1)
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.refuse
		},
	}
}

// serve serves g on b until the test ends.
func (g *gateway) serve(t *testing.T, b Bind) net.Listener {
	t.Helper()
	return serveSource(t, g.source(), b)
}

func socket(t *testing.T) Bind {
	return Bind{Path: filepath.Join(t.TempDir(), "admin.sock")}
}

func loopback() Bind { return Bind{Addr: netip.MustParseAddrPort("127.0.0.1:0")} }

// raw sends a request as it is and gives the whole answer.
func raw(t *testing.T, l net.Listener, request string) string {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c) //nolint:errcheck // a reset after the answer is not of interest
	return string(b)
}

func TestAPI(t *testing.T) {
	for name, bind := range map[string]Bind{"unix": socket(t), "tcp": loopback()} {
		t.Run(name, func(t *testing.T) {
			g := &gateway{level: "info"}
			l := g.serve(t, bind)
			f := func(request, status string, body ...string) {
				t.Helper()
				head, content, _ := strings.Cut(request, "|")
				got := raw(t, l, fmt.Sprintf("%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", head, len(content), content))
				if !strings.HasPrefix(got, "HTTP/1.1 "+status+" ") {
					t.Errorf("%s: want %s, got %s", request, status, got)
				}
				for _, b := range body {
					if !strings.Contains(got, b) {
						t.Errorf("%s: no %s in %s", request, b, got)
					}
				}
			}
			f("GET /healthz", "200", `"status": "ok"`, "Content-Type: application/json", "Cache-Control: no-store")
			f("HEAD /healthz", "200")
			f("GET /readyz", "200", `"status": "ready"`)
			f("GET /metrics", "200", "sluice_up 1\n", "text/plain; version=0.0.4")
			f("GET /status", "200", `"pid": 42`)
			f("GET /config", "200", "routes: []\n", "application/yaml")
			f("GET /routes", "200", "\r\n\r\n[]\n")
			f("GET /upstreams", "200", `"pending": 2`)
			f("GET /certs", "200", `"key": "ECDSA P-256"`, `"problem": "cannot read"`, `"state": "failed"`, `"next": "2026-01-02T03:04:05Z"`)
			f("GET /limits", "200", `"policy": "few"`, `"lease_misses": 7`)
			f("GET /limit?policy=few&key=a&key=b%20c", "200", `"level": "a|b c"`, `"remaining": 2`)
			f("GET /limit?policy=x", "400", "no such policy")
			f("DELETE /limit?policy=few&key=a+b%26c", "200", `"status": "reset"`)
			f("DELETE /limit?policy=few&key=b", "400", "cannot reset")
			f("POST /limit", "405", "Allow: GET, HEAD, DELETE")
			f("GET /jwks", "200", `"keys": 2`, `"fetched": "2026-01-02T03:04:05Z"`, `"problem": "no answer"`)
			f("GET /log-level", "200", `"level": "info"`, `"routes": []`)
			f(`PUT /log-level|{"level":"debug","route":"shop"}`, "200", `"shop"`, `"level": "info"`)
			f(`PUT /log-level|{"level":"debug"}`, "200", `"level": "debug"`)
			f(`PUT /log-level|{"level":"loud"}`, "400", `unknown log level`)
			f(`PUT /log-level|{"level":"debug","extra":1}`, "400", "unknown field")
			f(`PUT /log-level|{"level":"debug"}{}`, "400", "more than one value")
			f(`PUT /log-level|`, "400")
			f(`PUT /log-level|`+strings.Repeat(" ", bodyBytes+1), "413", "body too large")
			f("GET /"+strings.Repeat("x", headBytes), "431", "head too large")
			f("GET /nothing", "404", "no such path")
			f("GET /reload", "405", "Allow: POST")
			f("POST /status", "405", "Allow: GET, HEAD")
			f(`PUT /upstreams|{"upstream":"a","endpoints":["127.0.0.1:1"],"change":"drain"}`, "200", `"name": "a"`, `"pending": 2`)
			f(`PUT /upstreams|{"upstream":"b","endpoints":["127.0.0.1:1"],"change":"drain"}`, "400", "there is no upstream")
			f(`PUT /upstreams|{"upstream":"a","weight":"1"}`, "400", "cannot read body")
			f(`PUT /upstreams|{"upstream":"a","all":true}`, "400", "unknown field")
			f("POST /upstreams", "405", "Allow: GET, HEAD, PUT")
			f("DELETE /log-level", "405", "Allow: GET, HEAD, PUT")
			f("POST /reload?wait=true", "200", `"status": "applied"`)
			f("POST /reload?wait=maybe", "400")
			f("POST /reload|x", "400")
			g.mu.Lock()
			g.ready, g.refuse = errors.New("draining"), errors.New("sluice.yaml:3:1: unknown key")
			g.mu.Unlock()
			f("GET /readyz", "503", "draining")
			f("POST /reload?wait=true", "422", "sluice.yaml:3:1")
			if got := raw(t, l, "BAD\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, `"error"`) {
				t.Errorf("what is no HTTP: %q", got)
			}
		})
	}
}

func TestWebPagesAreTurnedAway(t *testing.T) {
	g := &gateway{}
	l := g.serve(t, loopback())
	f := func(fields, status string) {
		t.Helper()
		if got := raw(t, l, "POST /reload?wait=true HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n"+fields+"\r\n"); !strings.HasPrefix(got, "HTTP/1.1 "+status+" ") {
			t.Errorf("%q: want %s, got %s", fields, status, got)
		}
	}
	f("Host: 127.0.0.1:80\r\n", "200")
	f("Host: [::1]:80\r\n", "200")
	f("Host: localhost\r\n", "200")
	before := g.reloads.Load()
	f("Host: rebound.example.com\r\n", "403")
	f("Host: 192.0.2.1\r\n", "403")
	f("Host: 127.0.0.1\r\nOrigin: https://example.com\r\n", "403")
	f("Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n", "403")
	if g.reloads.Load() != before {
		t.Error("a web page has reloaded the gateway")
	}
}

func TestOneReloadAtATime(t *testing.T) {
	g := &gateway{hold: make(chan struct{})}
	bind := socket(t)
	g.serve(t, bind)
	c := Client{"unix:" + bind.Path}
	if err := c.Reload(false); err != nil {
		t.Fatal(err)
	}
	var refused *Refusal
	if err := c.Reload(false); !errors.As(err, &refused) || refused.Status != 409 {
		t.Errorf("a second reload: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- c.Reload(true) }()
	g.hold <- struct{}{}
	g.hold <- struct{}{}
	if err := <-waited; err != nil || g.reloads.Load() != 2 {
		t.Errorf("%d reloads: %v", g.reloads.Load(), err)
	}
}

func TestAPanicEndsOneAnswer(t *testing.T) {
	g := &gateway{}
	src := g.source()
	src.Status = func() Status { panic("boom") }
	src.Reload = func() error { panic("boom") }
	bind := socket(t)
	l, _, err := Listen(bind)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(src, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c := Client{"unix:" + bind.Path}
	if _, err := c.Status(); err == nil || err.Error() != "internal" {
		t.Errorf("%v", err)
	}
	for _, wait := range []bool{true, false} {
		if err := c.Reload(wait); (err != nil) != wait {
			t.Errorf("wait %t: %v", wait, err)
		}
	}
	if err := c.Healthy(); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestShutdownWithOpenConnections(t *testing.T) {
	g := &gateway{}
	l, _, err := Listen(loopback())
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(g.source(), slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("a kept connection holds up the end: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestListenUnix(t *testing.T) {
	bind := socket(t)
	old, replaced, err := Listen(bind)
	if err != nil || replaced {
		t.Fatalf("replaced %v: %v", replaced, err)
	}
	f, err := os.Stat(bind.Path)
	if err != nil || f.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v: %v", f.Mode(), err)
	}
	if _, _, err := Listen(bind); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("listens twice: %v", err)
	}
	if err := old.(*unixListener).Listener.Close(); err != nil { // as if the process had died: the file stays
		t.Fatal(err)
	}
	l, replaced, err := Listen(bind)
	if err != nil || !replaced {
		t.Fatalf("what a dead process left is in the way, or replaced without a word: %v, %v", replaced, err)
	}
	if err := old.Close(); err == nil {
		t.Error("closed twice")
	}
	if _, err := os.Stat(bind.Path); err != nil {
		t.Errorf("the first one has removed the second one's file: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bind.Path); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
	if err := os.WriteFile(bind.Path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listen(bind); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("listens in the place of a file: %v", err)
	}
	if b, err := os.ReadFile(bind.Path); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q: %v", b, err)
	}
}

func TestListenOnLoopbackOnly(t *testing.T) {
	for _, a := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:80"} {
		if l, _, err := Listen(Bind{Addr: netip.MustParseAddrPort(a)}); err == nil {
			t.Errorf("listens on %s", a)
			l.Close() //nolint:errcheck // it should not be
		} else if !strings.Contains(err.Error(), "authentication") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestCtl(t *testing.T) {
	g := &gateway{level: "info"}
	bind := socket(t)
	g.serve(t, bind)
	f := func(line string, code int, want ...string) {
		t.Helper()
		var out, bad bytes.Buffer
		got := Ctl(append([]string{"--admin", "unix:" + bind.Path}, strings.Fields(line)...), &out, &bad)
		if got != code {
			t.Errorf("%s: exit %d, want %d: %s%s", line, got, code, &out, &bad)
		}
		if (code == exitOK) != (bad.Len() == 0) {
			t.Errorf("%s: says %q", line, &bad)
		}
		for _, w := range want {
			if !strings.Contains(out.String()+bad.String(), w) {
				t.Errorf("%s: no %q in:\n%s%s", line, w, &out, &bad)
			}
		}
		if strings.Contains(line, "--json") && code == exitOK && !json.Valid(out.Bytes()) {
			t.Errorf("%s: no JSON: %s", line, &out)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: an escape sequence is printed", line)
		}
	}
	f("health", exitOK, "ok\n")
	f("ready", exitOK, "ready\n")
	f("status", exitOK, "state          serving\n", "refused 2026-01-02T03:04:05Z (config): sluice.yaml:1:2: no", "1     stalled\n", "http      5     9         :80, unix:/x\n")
	f("status --json", exitOK, `"generation": 3`)
	f("routes", exitOK, "ROUTE")
	f("upstreams", exitOK, `evil\x1b[2J`, "empty     none")
	f("--json upstreams", exitOK)
	f("jwks", exitOK, `https://id.example.com/keys  2     k1\x1b`, "no answer")
	f("certs", exitOK, `evil\x1b[2J`, "  2  ", `failed  b.pem  cannot read; no answer\x1b`, "www.example.com  acme    -", "2026-01-02T03:04:05Z  -       -")
	f("limits", exitOK, "few     ip     5/s    11 ", `few     ip=evil\x1b[2J  3`)
	f("limit few show x y", exitOK, "x|y    -     5/s    2          1s\n")
	f("limit few reset a", exitRefused, "cannot reset")
	f("limit few", exitUsage, "show|reset")
	f("limit few burn a", exitUsage, `"burn"`)
	f("config", exitOK, "routes: []\n")
	f("metrics", exitOK, "sluice_up 1\n")
	set := func(want string) {
		t.Helper()
		g.mu.Lock()
		defer g.mu.Unlock()
		weight := "none"
		if g.set.Weight != nil {
			weight = fmt.Sprint(*g.set.Weight)
		}
		if got := fmt.Sprint(g.set.Change, " ", g.set.Endpoints, " ", weight); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f("upstream a drain 127.0.0.1:1 127.0.0.1:2", exitOK, "127.0.0.1:1")
	set("drain [127.0.0.1:1 127.0.0.1:2] none")
	f("upstream a weight 127.0.0.1:1 0", exitOK)
	set("weight [127.0.0.1:1] 0")
	f("upstream a weight 127.0.0.1:1 configured", exitOK)
	set("weight [127.0.0.1:1] none")
	f("upstream b drain 127.0.0.1:1", exitRefused, "there is no upstream")
	f("upstream a drain", exitUsage, "ADDRESS")
	f("upstream a weight 127.0.0.1:1", exitUsage, "ADDRESS and N")
	f("upstream a weight 127.0.0.1:1 2 3", exitUsage, "ADDRESS and N")
	f("upstream a weight 127.0.0.1:1 x", exitUsage, "no number")
	f("upstream a stop 127.0.0.1:1", exitUsage, "unknown change")
	f("log-level", exitOK, "level  info\n")
	f("log-level debug --route shop", exitOK, "debugged routes  shop\n")
	f("log-level loud", exitRefused, "unknown log level")
	f("reload", exitOK, "reload begun")
	f("reload --wait", exitOK, "reloaded")
	g.mu.Lock()
	g.ready, g.refuse = errors.New("draining"), errors.New("sluice.yaml:3:1: no\n  ^")
	g.mu.Unlock()
	f("ready", exitRefused, "not ready: draining")
	f("reload --wait", exitRefused, "sluice.yaml:3:1: no\n  ^\n")
	f("", exitUsage, "no command")
	f("dance", exitUsage, `unknown command "dance"`)
	f("status now", exitUsage, `unexpected "now"`)
	f("status --wait", exitUsage, "--wait")
	f("log-level --route shop", exitUsage, "--route")
	f("--unknown status", exitUsage, "-unknown")
	f("--admin nowhere status", exitUsage, "bad address")
	f("--admin unix:"+bind.Path+".none health", exitRefused, "cannot ask gateway")
	f("--help", exitOK, "usage: sluice ctl")
}
