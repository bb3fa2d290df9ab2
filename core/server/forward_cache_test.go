package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestForwardCacheTold: an answer serves nobody of whom the service would have been told something else: another consumer, or what a trusted
// proxy was asked for.
func TestForwardCacheTold(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Consumer-Name") != "acme" || r.Header.Get("X-Forwarded-Uri") == "/admin" {
			w.WriteHeader(403)
		}
	}))
	t.Cleanup(h.Close)
	use := `use: [{ keyauth: on }, { forward: { url: "` + h.URL + `", trust_forwarded: true, cache: { key: header:X-Tenant, per: PER, ttl: 1h } } }], to: a }
`
	text := strings.NewReplacer(`bind: "127.0.0.1:0"`, "bind: \"127.0.0.1:0\"\n    real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] }",
		"routes: [{ match: \"/*\", to: a }]\n", "consumers:\n  acme: { keys: \""+keyHash(acmeKey)+"\" }\n  other: { keys: \""+keyHash("the-key-of-the-other")+"\" }\nroutes:\n"+
			"  - { match: /request, "+strings.Replace(use, "PER", "request", 1)+"  - { match: /route, "+strings.Replace(use, "PER", "route", 1)).
		Replace(h2Config(newMirror(t), "[h1, h2c]"))
	g := newGate(t, text)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}} // one connection, and so one loop with its cache
	t.Cleanup(client.CloseIdleConnections)
	for _, path := range []string{"/request", "/route"} {
		for _, c := range []struct {
			key, uri string
			want     int
		}{{acmeKey, "", 200}, {"the-key-of-the-other", "", 403}, {acmeKey, "/admin", 403}, {acmeKey, "/shop", 200}, {"the-key-of-the-other", "/shop", 403}, {acmeKey, "", 200}} {
			req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", c.key)
			req.Header.Set("X-Tenant", "red")
			if c.uri != "" {
				req.Header.Set("X-Forwarded-Uri", c.uri)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("%s with %q for %q: %d, want %d", path, c.key, c.uri, res.StatusCode, c.want)
			}
		}
	}
	if _, cached, _, _, _ := g.forwardCounts(); cached != 2 {
		t.Errorf("%d answers were kept ones, want 2", cached)
	}
}
