package server

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
)

const (
	// allocsPerRequest is what a proxied request may allocate. It is not quite 0 because the count is the whole process's:
	// the runtime allocates now and then on its own account (timers, the poller, a thread for the watchdog), the watchdog
	// and the access log's writer have their tickers. Three allocations in a hundred requests are far below one a request.
	allocsPerRequest = 0.03
	warmRequests     = 3000
	countedRequests  = 8000
)

// allocCase is a kind of request: what the client sends and the upstream answers, each known by its end.
type allocCase struct {
	name    string
	config  string // UPSTREAM is the upstream's address
	request []string
	answer  string
	// How the request ends for the upstream and the answer for the client; "": both end with `end`.
	requestEnds, answerEnds string
	refused                 bool    // the answer is 429
	each                    func()  // for each request, in the upstream
	inherent                float64 // allocations a request that no code of ours can avoid
}

const plainConfig = `
loops: 2
access_log: { to: off }
log: { level: error }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: { endpoints: ["UPSTREAM"] } }
routes: [{ match: "/*", to: a }]
`

const routedConfig = `
loops: 2
access_log: { to: off }
log: { level: error }
listeners:
  http:
    bind: "127.0.0.1:0"
    merge_slashes: true
    real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] }
    forward: { forwarded: true, via: edge }
upstreams:
  a: { endpoints: ["UPSTREAM"] }
  b: { endpoints: ["UPSTREAM"] }
routes:
  - { match: "other.example/*", respond: { status: 404 } }
  - { match: "GET api.example.com/v2/*", to: b }
  - match: { host: "*.example.com", path: "/v1/users/*", headers: { X-Tenant: red } }
    rewrite: { pattern: "^/v1/users/([0-9]+)/(.*)$", to: "/people/$1/$2" }
    host: inner.example
    to: a
  - { match: api.example.com/both, to: { a: 3, b: 1 } }
  - { match: "/shop/*", replace_prefix: { prefix: /shop, with: /v2/shop }, to: b }
  - { match: "*.example.com/v1/*", strip_prefix: /v1, to: a }
  - { match: "/*", respond: { status: 404 } }
`

// balancedConfig has an upstream with several endpoints to choose from, both of which are the same server: to Linux 0.0.0.0 is here.
func balancedConfig(balance string) string {
	return strings.NewReplacer("[\"UPSTREAM\"]", "[\"UPSTREAM\", { address: \"0.0.0.0:PORT\", weight: 2 }], balance: "+balance).Replace(plainConfig)
}

// shapedConfig spreads a route over two upstreams, as more says besides.
func shapedConfig(more string) string {
	return strings.NewReplacer("{ a: {", "{ b: \"UPSTREAM\", c: \"UPSTREAM\", d: \"UPSTREAM\", a: {", "to: a }", "to: { a: 3, b: 1 }, "+more+" }, { match: /c, to: { c: 1, d: 1 } }").Replace(plainConfig)
}

// guardedConfig has everything on that keeps requests from endpoints and upstreams which fail or slow down.
var guardedConfig = strings.NewReplacer("to: a }", "to: a, breaker: { slow: p99 > 1s, consecutive: 5, fallback: { respond: { status: 503 } } } }").Replace(
	balancedConfig("least_request, outlier: { consecutive_5xx: 3, split_external_local_origin_errors: true }, pool: { max_requests: 100 }, " +
		"breaker: { slow: p99 > 1s, consecutive: 5 }, concurrency: adaptive"))

const limitedConfig = `
loops: 2
access_log: { to: off }
log: { level: error }
listeners: { http: { bind: "127.0.0.1:0", protocols: [h1, h2c] } }
upstreams: { a: { endpoints: ["UPSTREAM"] } }
policies:
  rate:
    rate_limit:
      limits:
        - { scope: global, limit: 1000000/s }
        - { scope: [route, method], limit: [1000000/s, 90000000/min] }
        - { scope: key, limit: 900000/s }
      key: [header:user-agent, ip, "query:a", host]
      legacy_headers: true
  flight: { concurrency: { limit: 100, key: [ip, "query:a"] } }
  never: { rate_limit: { limit: 1/s, key: [ip, header:x-none, host], on_missing: deny } }
routes: [{ match: "/*", use: [rate, flight], to: a }, { match: /never, use: never, to: a }]
`

// triedConfig has everything on that bounds attempts and has them repeated.
const triedConfig = `
loops: 2
access_log: { to: off }
log: { level: error }
listeners: { http: { bind: "127.0.0.1:0", request_timeout: header } }
upstreams:
  a:
    endpoints: ["UPSTREAM", "0.0.0.0:PORT"]
    pool: { max_retries: 10 }
    retry: { attempts: 3, on: [5xx, 429, reset, timeout, unavailable], per_try: 1h, methods: [GET, PUT], budget: { percent: 10% } }
    timeouts: { total: 2h }
routes: [{ match: "/*", to: a, timeouts: { header: 10s, idle: 20s } }]
`

// keyConfig asks for the key that a consumer has, wherever it is, and hides it.
var keyConfig = strings.Replace(plainConfig, "to: a }", "use: [{ keyauth: { cookie: [k, key], query: [k, key] } }], to: a }", 1) +
	"consumers: { acme: { keys: \"" + keyHash(acmeKey) + "\" } }\n"

const get = "GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"

func answerOf(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func chunkedAnswer(chunks ...string) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, c := range chunks {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}

func post(body string) string {
	return fmt.Sprintf("POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func allocCases(t testing.TB) []allocCase {
	tokens := newTokenCase(t)
	t.Setenv("SLUICE_TEST_SECRET", "s3 &cret")
	small, kib, upload := answerOf(end), answerOf(bodyOf(1<<10)), post(bodyOf(16<<10))
	half := len(upload) / 2
	routed := func(path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: api.example.com\r\nX-Tenant: red\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
	}
	logged := strings.Replace(plainConfig, `to: off`, `to: "FOLDER/access.log"`, 1)
	return []allocCase{
		{name: "get", config: plainConfig, request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "large answer", config: plainConfig, request: []string{get}, answer: answerOf(bodyOf(200 << 10)), requestEnds: "\r\n\r\n"},
		{name: "post", config: plainConfig, request: []string{upload}, answer: small},
		{name: "post in pieces", config: plainConfig, request: []string{upload[:half], upload[half:]}, answer: small},
		{name: "large post", config: plainConfig, request: []string{post(bodyOf(200 << 10))}, answer: small},
		{name: "chunked post", config: plainConfig, answer: small, requestEnds: "0\r\n\r\n",
			request: []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n" + end + "\r\n0\r\n\r\n"}},
		{name: "chunked answer", config: plainConfig, request: []string{get}, requestEnds: "\r\n\r\n", answerEnds: "0\r\n\r\n",
			answer: chunkedAnswer(bodyOf(700), bodyOf(5000), end)},
		// Package regexp gives what it has found in a fresh slice.
		{name: "routes and a pattern", config: routedConfig, inherent: 1, request: []string{routed("/v1//users/42/x?y=z")},
			answer: kib, requestEnds: "\r\n\r\n"},
		{name: "routes and a stripped prefix", config: routedConfig, request: []string{routed("/v1/orders/%41")},
			answer: kib, requestEnds: "\r\n\r\n"},
		{name: "routes and a replaced prefix", config: routedConfig, request: []string{routed("/shop/orders?x")},
			answer: kib, requestEnds: "\r\n\r\n"},
		{name: "two upstreams", config: routedConfig, request: []string{routed("/both")}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "sticky split", config: shapedConfig("split_by: [cookie:u, header:User-Agent]"), request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "canary", config: shapedConfig("canary: { to: c, steps: [50], key: { cookie: { name: side } } }"),
			request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "mirror", config: shapedConfig("mirror: d"), request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "fault that is not for it", config: strings.Replace(plainConfig, "to: a }", "use: [{ fault: { delay: 1s, when: { header: X-Chaos } } }], to: a }", 1),
			request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "least request", config: balancedConfig("{ least_request: {}, slow_start: 1h }"), request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "peak ewma", config: balancedConfig("peak_ewma"), request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "maglev by header", config: balancedConfig("{ maglev: { key: [query:user, cookie:user, header:User-Agent], load_factor: 2 } }"),
			request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "maglev by claim", answer: kib, requestEnds: "\r\n\r\n", request: []string{strings.Replace(get, "Accept", "Authorization: Bearer "+tokens.token+"\r\nAccept", 1)},
			config: strings.Replace(tokens.config, "[\"UPSTREAM\"]", "[\"UPSTREAM\", \"0.0.0.0:PORT\"], balance: { maglev: { key: [\"query:u\", tenant, \"claim:scope\"] } }", 1)},
		{name: "sticky cookie", config: balancedConfig("{ ring_hash: { key: { cookie: { name: sid, ttl: 1h } } } }"),
			request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "ejections, breakers and bounds", config: guardedConfig, request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "retries and timeouts", config: triedConfig, request: []string{strings.Replace(get, "Accept", "X-Request-Timeout: 30.5\r\nAccept", 1)},
			answer: kib, requestEnds: "\r\n\r\n"},
		{name: "hedges", config: strings.Replace(triedConfig, "pool:", "hedge: 30s\n    pool:", 1), request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "hedged post", config: strings.Replace(triedConfig, "pool:", "hedge: 30s\n    pool:", 1), answer: small,
			request: []string{strings.Replace(post(bodyOf(10<<10)), "POST", "PUT", 1)}},
		{name: "body kept for a retry", config: triedConfig, request: []string{strings.Replace(post(bodyOf(10<<10)), "Host", "Idempotency-Key: 1\r\nHost", 1)}, answer: small},
		{name: "limits", config: limitedConfig, request: []string{strings.Replace(get, "/ ", "/?a=%41b ", 1)}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "refused by a limit", config: limitedConfig, request: []string{strings.Replace(get, "/ ", "/never ", 1)},
			answerEnds: "\"status\":429}\n", refused: true},
		{name: "key in the query", config: keyConfig, request: []string{strings.Replace(get, "/ ", "/?a=b&key=a%2Bkey/of=acme-1234 ", 1)},
			answer: kib, requestEnds: "\r\n\r\n"},
		{name: "key in a cookie", config: keyConfig, request: []string{strings.Replace(get, "Accept", "Cookie: a=b; key="+acmeKey+"\r\nAccept", 1)},
			answer: kib, requestEnds: "\r\n\r\n"},
		{name: "key with an id", answer: kib, requestEnds: "\r\n\r\n", request: []string{strings.Replace(get, "Accept", "Api-Key: "+liveKey+"\r\nAccept", 1)},
			config: strings.Replace(plainConfig, "to: a }", `use: [{ keyauth: { header: [X-API-Key, Api-Key], prefix: [x, acme_live_] } },
				{ access: { when: 'consumer.key_id == "acme_live_3fk2"' } }], to: a }`, 1) +
				"identity: { headers: on }\nconsumers: { acme: { keys: { id: acme_live_3fk2, key: \"" + keyHash(liveKey) + "\" } } }\n"},
		{name: "token", config: tokens.config, answer: kib, requestEnds: "\r\n\r\n",
			request: []string{strings.Replace(get, "Accept", "Authorization: Bearer "+tokens.token+"\r\nAccept", 1)}},
		{name: "key and method of several ways", answer: kib, requestEnds: "\r\n\r\n", request: []string{strings.Replace(get, "Accept", "X-API-Key: "+acmeKey+"\r\nAccept", 1)},
			config: strings.Replace(plainConfig, "to: a }", "use: [{ any: [{ all: [{ keyauth: on }, { access: { methods: GET } }] }, { basic: on }] }], to: a }", 1) +
				"consumers: { acme: { keys: \"" + keyHash(acmeKey) + "\", basic: { ann: \"" + argonHash("x") + "\" } } }\n"},
		{name: "password", config: strings.Replace(plainConfig, "to: a }", "use: [{ basic: on }, { access: { consumers: ann } }], to: a }", 1) +
			"consumers: { ann: { basic: { ann: \"" + argonHash("x") + "\" } } }\n", answer: kib, requestEnds: "\r\n\r\n",
			request: []string{strings.Replace(get, "Accept", basicHeader("ann:x")+"\r\nAccept", 1)}},
		{name: "condition", config: strings.Replace(plainConfig, "to: a }", `use: [{ keyauth: { optional: true } }, { access: { when: 'path startsWith "/" and method in ["GET"] and (header("User-Agent") == "test" or "x" in consumer.groups)' } }], to: a }`, 1),
			request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		// Text on which the machine of expressions works itself: a copy of the path, and a value made of it.
		{name: "condition on a length", inherent: 2, config: strings.Replace(plainConfig, "to: a }", `use: [{ access: { when: 'len(path) < 1000' } }], to: a }`, 1),
			request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "forward", answer: kib, requestEnds: "\r\n\r\n", request: []string{strings.Replace(get, "Accept", "X-User: root\r\nAuthorization: User ann\r\nAccept", 1)},
			config: strings.Replace(plainConfig, "to: a }", "use: [{ forward: { url: \""+newAuthService(t).url+
				"\", copy: [X-User, X-Roles], copy_to_client: X-For-Client, cache: { key: [header:Authorization, ip, \"query:k\"], ttl: 1h } } }], to: a }", 1)},
		{name: "introspected", answer: kib, requestEnds: "\r\n\r\n", request: []string{strings.Replace(get, "Accept", "X-User: root\r\nAuthorization: Bearer good-ann\r\nAccept", 1)},
			config: strings.Replace(plainConfig, "to: a }", "use: [{ introspect: { url: \""+newIntrospector(t).url+
				"\", client: { id: \"a:b\", secret: env:SLUICE_TEST_SECRET }, headers: { X-User: sub } } }], to: a }", 1)},
		{name: "token of our own", answer: kib, requestEnds: "\r\n\r\n", request: []string{strings.Replace(get, "Accept", "Authorization: Basic Y2xpZW50\r\nAccept", 1)},
			config: strings.Replace(plainConfig, "[\"UPSTREAM\"] }", "[\"UPSTREAM\"], authorize: { client_credentials: { url: \""+newClientIssuer(t).url+
				"\", client: { id: gateway, secret: env:SLUICE_TEST_SECRET } } } }", 1)},
		{name: "identity token", config: keyConfig + "identity: { headers: off, token: { issuer: gateway, claims: [consumer, groups, email] } }\n",
			request: []string{strings.Replace(get, "/ ", "/?a=b&key=a%2Bkey/of=acme-1234 ", 1)}, answer: kib, requestEnds: "\r\n\r\n"},
		{name: "published keys", config: strings.Replace(plainConfig, "to: a }", "to: a }, { match: /keys, respond: jwks }", 1) + "identity: { token: { issuer: gateway } }\n",
			request: []string{strings.Replace(get, "/ ", "/keys ", 1)}, answer: kib, requestEnds: "\r\n\r\n", answerEnds: "}]}\n"},
		{name: "access log", config: logged, request: []string{get}, answer: kib, requestEnds: "\r\n\r\n"},
	}
}

// TestNoAllocations shows that a proxied request on kept connections costs no allocation, with metrics on.
func TestNoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	for _, c := range allocCases(t) {
		t.Run(c.name, func(t *testing.T) {
			if per := allocations(t, &c, countedRequests); per >= c.inherent+allocsPerRequest {
				t.Errorf("%.4f allocations a request, want less than %v", per, c.inherent+allocsPerRequest)
			}
		})
	}
}

// TestAllocationsAreSeen is the proof that TestNoAllocations can fail: one allocation a request, anywhere in the process, is
// counted.
func TestAllocationsAreSeen(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	var kept atomic.Pointer[[]byte]
	c := allocCases(t)[0]
	c.each = func() {
		b := make([]byte, 64)
		kept.Store(&b)
	}
	if per := allocations(t, &c, countedRequests/10); per < 1 {
		t.Errorf("%.4f allocations a request were counted where one or more are made", per)
	}
}

// allocations gives the allocations of the process for each of n requests, after the gateway is warm.
func allocations(t *testing.T, c *allocCase, n int) float64 {
	orEnd := func(s string) string {
		if s == "" {
			return end
		}
		return s
	}
	u := newFixedUpstream(t, c.answer, c.each, orEnd(c.requestEnds))
	_, port, _ := strings.Cut(u.addr(), ":")
	// Memory is not looked at: that allocates as time passes, so that requests which take longer would seem to allocate more.
	g := run(t, strings.NewReplacer("UPSTREAM", u.addr(), "PORT", port).Replace(c.config)+"\ntuning: { shed_above: off }\n")
	client := newFixedClient(t, g.addr, orEnd(c.answerEnds), c.request...)
	if c.refused {
		client.starts = []byte("HTTP/1.1 429 ")
	}
	if err := client.exchange(warmRequests); err != nil {
		t.Fatal(err)
	}
	per := mallocs(t, n, client.exchange)
	metrics, err := g.admin.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(warmRequests + n); !strings.Contains(string(metrics), " "+want+"\n") {
		t.Errorf("the metrics do not tell of %s requests", want)
	}
	if path := filepath.Join(g.folder, "access.log"); strings.Contains(c.config, "FOLDER/access.log") {
		_ = client.conn.Close()
		g.stop() // the log is written out
		text, err := os.ReadFile(path)
		if lines := strings.Count(string(text), "\n"); err != nil || lines != warmRequests+n {
			t.Errorf("%d lines in the access log, want %d: %v", lines, warmRequests+n, err)
		}
	}
	return per
}

// mallocs makes n requests in eight parts and counts the allocations of a request in the part that had the fewest: what the process
// allocates as time passes is not the requests'.
func mallocs(t *testing.T, n int, requests func(n int) error) float64 {
	t.Helper()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what a collection allocates is not the gateway's
	const parts = 8
	fewest := math.Inf(1)
	for range parts {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := requests(n / parts)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		fewest = min(fewest, float64(after.Mallocs-before.Mallocs)/float64(n/parts))
	}
	return fewest
}
