package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// backgroundConfig has what works in the background, or keeps connections.
const backgroundConfig = `
loops: 2
resolvers: ["NAMES"]
access_log: { to: "FOLDER/log" }
cluster: { redis: { addresses: ["REDIS"] }, secret: env:SLUICE_TEST_KEY }
identity: { token: { issuer: "https://gateway.test", lifetime: 2m } }
consumers_file: FOLDER/consumers
listeners:
  http: { bind: "127.0.0.1:0", protocols: [h1, h2c] }
  extra: { bind: "unix:FOLDER/extra.sock" }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [FOLDER/cert] } }
upstreams:
  plain:
    endpoints: ["UPSTREAM"]
    health: { http: { path: /small }, interval: 20ms }
    outlier: on
    breaker: { errors: 50% }
    concurrency: adaptive
    retry: 3
    hedge: 50ms
  h2: { endpoints: ["UPSTREAM"], protocol: h2c, http2: { keepalive: 1s } }
  named: { endpoints: ["a.test:PORT"], resolve: 1s }
  listed: { endpoints: { file: FOLDER/endpoints } }
  probed: { endpoints: ["UPSTREAM"], health: { tcp: {}, interval: 20ms } }
  rpc: { endpoints: ["CHECKS"], protocol: h2c, health: { grpc: {}, interval: 20ms } }
  paid: { endpoints: ["UPSTREAM"], authorize: { client_credentials: { url: "CLIENT", client: { id: gateway, secret: env:SLUICE_TEST_SECRET } } } }
policies:
  forward: { forward: { url: "AUTH/check", cache: { key: header:Authorization, ttl: 1m } } }
  checks: { ext_authz: { url: "grpc://CHECKS" } }
  system: { ext_authz: { url: "grpcs://CHECKS", timeout: 100ms } }
  others: { ext_authz: { url: "grpcs://CHECKS", timeout: 100ms, tls: { server_name: else.test } } }
  tokens: { jwt: { jwks: "KEYS", audience: api } }
  opaque: { introspect: { url: "INTROSPECT", client: { id: "a:b", secret: env:SLUICE_TEST_OTHER }, issuer: "https://id.test", audience: api } }
  people: { oidc: { issuer: "LOGIN", client: { id: gateway, secret: env:SLUICE_TEST_SECRET }, sessions: { store: redis, key: env:SLUICE_TEST_KEY } } }
  strict: { rate_limit: { limit: 1000/s, mode: strict } }
  lease: { rate_limit: { limit: 1000/s, mode: lease } }
  inside: { ip: { deny: "file:FOLDER/networks" } }
routes:
  - { match: /h2/*, to: h2, strip_prefix: /h2 }
  - { match: /named/*, to: named, strip_prefix: /named, mirror: listed }
  - { match: /listed/*, to: listed, strip_prefix: /listed, canary: { to: h2, steps: [50] } }
  - { match: /probed/*, to: { probed: 1, rpc: 0 }, strip_prefix: /probed }
  - { match: /paid/*, to: paid, strip_prefix: /paid }
  - { match: /forward/*, use: forward, to: plain, strip_prefix: /forward }
  - { match: /checks/*, use: checks, to: plain, strip_prefix: /checks }
  - { match: /system/*, use: system, to: plain }
  - { match: /others/*, use: others, to: plain }
  - { match: /tokens/*, use: tokens, to: plain }
  - { match: /opaque/*, use: opaque, to: plain }
  - { match: /people/*, use: people, to: plain }
  - { match: /limited/*, use: [strict, lease, { concurrency: 100 }, inside], to: plain, strip_prefix: /limited }
`

// TestReloadsLeaveNothing puts such a configuration in force, uses it, and takes it out again, over and over: the gateway then has what it had
// after the first time, goroutines of libraries, open files and memory included.
func TestReloadsLeaveNothing(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "s3cret")
	t.Setenv("SLUICE_TEST_OTHER", "s3 &cret")
	t.Setenv("SLUICE_TEST_KEY", strings.Repeat("k", 32))
	u, folder := newManyUpstream(t), t.TempDir()
	cert, key := newAuthority(t).issue(false, "a.test")
	for name, text := range map[string]string{"cert": string(cert) + string(key), "networks": "192.0.2.0/24\n", "endpoints": `["` + u.addr + `"]`,
		"consumers": `{"name":"x","keys":["sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"]}`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := newLoginProvider(t)
	all := strings.NewReplacer("FOLDER", folder, "UPSTREAM", u.addr, "PORT", u.addr[strings.LastIndex(u.addr, ":")+1:], "NAMES", newZone(t, "a.test. 1 A 127.0.0.1").at,
		"REDIS", newRedisServer(t).addr, "AUTH", newAuthService(t).url, "CHECKS", newCheckService(t).addr, "INTROSPECT", newIntrospector(t).url,
		"CLIENT", newClientIssuer(t).url, "LOGIN", login.server.URL, "KEYS", login.url).Replace(backgroundConfig)
	none := "loops: 2\nlisteners: { http: { bind: \"127.0.0.1:0\", protocols: [h1, h2c] } }\nroutes: [{ match: /*, respond: {} }]\n"
	g := run(t, none)

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(path string) int {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Accept": {"text/html"}, "Authorization": {"User ann"}}
		if strings.HasPrefix(path, "/tokens") || strings.HasPrefix(path, "/opaque") {
			req.Header.Set("Authorization", "Bearer a.b.c")
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	cycle := func() {
		g.write(all)
		g.reload()
		for path, want := range map[string]int{"/h2/small": 200, "/named/small": 200, "/listed/small": 200, "/probed/small": 200, "/paid/small": 200,
			"/forward/small": 200, "/checks/small": 200, "/system/": 503, "/others/": 503, "/tokens/": 401, "/opaque/": 401, "/people/": 302, "/limited/small": 200} {
			g.eventually(path, func() bool { return get(path) == want })
		}
		g.write(none)
		g.reload()
	}
	before := alive()
	cycle()
	g.eventually("files are closed", func() bool { return alive()[openFiles] <= before[openFiles] })
	before = alive() // some things begin with their first use, and last
	const cycles, most = 4, 8 << 20
	heap := heapBytes()
	for range cycles {
		cycle()
	}
	var more []string
	if !comesToPass(func() bool { more = grown(before, alive()); return len(more) == 0 }) {
		t.Errorf("it is left: %s", more)
	}
	if !comesToPass(func() bool { return heapBytes() < heap+most }) { // a table of concurrency alone takes 6 MiB each time
		t.Errorf("%d bytes more are in use than after one reload of %d", heapBytes()-heap, cycles+1)
	}
}

// heapBytes is what is in use of the heap.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

const (
	openFiles  = "open files"
	coroutines = "iter.Pull[...]" // of which a loop keeps some
)

var createdBy = regexp.MustCompile(`created by (.*) in goroutine`)

// alive counts goroutines by who has begun them, and open files.
func alive() map[string]int {
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	all := map[string]int{}
	for _, by := range createdBy.FindAllSubmatch(b, -1) {
		all[string(by[1])]++
	}
	delete(all, coroutines)
	open, _ := os.ReadDir("/proc/self/fd")
	all[openFiles] = len(open)
	return all
}

// grown is what there is more of.
func grown(before, now map[string]int) (more []string) {
	for what, n := range now {
		if n > before[what] {
			more = append(more, fmt.Sprintf("%d %s, %d before", n, what, before[what]))
		}
	}
	return more
}
