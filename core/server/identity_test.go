package server

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newMirror is an upstream that answers with the request as it came.
func newMirror(t testing.TB) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := httputil.DumpRequest(r, false)
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// identityCase is a request, and what becomes of it over either protocol.
type identityCase struct {
	name    string
	path    string
	headers []string // "Name: value"
	status  int
	reason  string   // of a refusal
	asks    string   // what WWW-Authenticate begins with
	sees    []string // what the upstream's request has
	hidden  []string // what it has not
}

// judge makes the requests over HTTP/1.1 and HTTP/2 and wants the same verdict.
func judge(t *testing.T, addr string, cases []identityCase) {
	t.Helper()
	plain := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: patience}
	t.Cleanup(plain.CloseIdleConnections)
	for protocol, client := range map[string]*http.Client{"h1": plain, "h2": newH2Client(t)} {
		for _, c := range cases {
			req, err := http.NewRequest("GET", "http://"+addr+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range c.headers {
				name, value, _ := strings.Cut(line, ": ")
				req.Header[name] = append(req.Header[name], value)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatalf("%s, %s: %v", protocol, c.name, err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			body, asks := string(b), res.Header.Get("WWW-Authenticate")
			if err != nil || res.StatusCode != c.status || !strings.HasPrefix(asks, c.asks) || c.asks == "" && asks != "" ||
				c.reason != "" && !strings.Contains(body, `"error":"`+c.reason+`"`) {
				t.Errorf("%s, %s: %d %q %s %v, want %d %q %s", protocol, c.name, res.StatusCode, asks, body, err, c.status, c.asks, c.reason)
			}
			for _, s := range c.sees {
				if !strings.Contains(body, s) {
					t.Errorf("%s, %s: the upstream has not got %q:\n%s", protocol, c.name, s, body)
				}
			}
			for _, s := range c.hidden {
				if strings.Contains(strings.ToLower(body), strings.ToLower(s)) {
					t.Errorf("%s, %s: the upstream has got %q:\n%s", protocol, c.name, s, body)
				}
			}
		}
	}
}

// identityGate is a gateway with routes of these policies, by path, and consumers.
func identityGate(t *testing.T, routes map[string]string, consumers string) *gate {
	t.Helper()
	text := strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "routes: [{ match: \"/*\", to: a }]\n", "routes:\n", 1)
	for path, use := range routes {
		text += fmt.Sprintf("  - { match: \"%s\", use: [%s], to: a }\n", path, use)
	}
	return newGate(t, text+"  - { match: \"/open\", to: a }\nconsumers:\n"+consumers)
}

func keyHash(key string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(key))) }

const acmeKey = "a+key/of=acme-1234"

// TestKeyAuth shows who passes with which key, what the upstream learns of it, and that both protocols say the same.
func TestKeyAuth(t *testing.T) {
	g := identityGate(t, map[string]string{
		"/key":      "{ keyauth: on }",
		"/anywhere": "{ keyauth: { header: X-Key, cookie: key, query: api_key } }",
		"/shown":    "{ keyauth: { header: X-Key, query: api_key, hide: false } }",
		"/optional": "{ keyauth: { optional: true } }",
	}, "  acme: { keys: [\""+keyHash(acmeKey)+"\", \""+keyHash("the-next-key-of-acme")+"\"] }\n")
	acme := "X-Consumer-Name: acme\r\n"
	judge(t, g.addr, []identityCase{
		{name: "right", path: "/key", headers: []string{"X-API-Key: " + acmeKey}, status: 200, sees: []string{acme}, hidden: []string{"api-key"}},
		{name: "the next", path: "/key", headers: []string{"x-api-key: the-next-key-of-acme"}, status: 200, sees: []string{acme}},
		{name: "none", path: "/key", status: 401, reason: "key_missing", asks: "ApiKey "},
		{name: "wrong", path: "/key", headers: []string{"X-API-Key: " + acmeKey + "x"}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "empty", path: "/key", headers: []string{"X-API-Key: "}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "the hash", path: "/key", headers: []string{"X-API-Key: " + keyHash(acmeKey)}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "long", path: "/key", headers: []string{"X-API-Key: " + strings.Repeat("x", 9000)}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "two", path: "/key", headers: []string{"X-API-Key: " + acmeKey, "X-API-Key: " + acmeKey}, status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "elsewhere", path: "/key?api_key=" + acmeKey, status: 401, reason: "key_missing", asks: "ApiKey "},
		{name: "forged names", path: "/key", headers: []string{"X-API-Key: " + acmeKey, "X-Consumer-Name: root", "x_consumer_name: root", "X-API_Key: spare"},
			status: 200, sees: []string{acme}, hidden: []string{"root", "spare"}},
		{name: "forged on an open route", path: "/open", headers: []string{"X-Consumer-Name: root", "X_Consumer_Name: root"}, status: 200, hidden: []string{"root", "consumer"}},
		{name: "query", path: "/anywhere?a=1&api_key=a%2Bkey/of=acme-1234&b=%26", status: 200, sees: []string{acme, "/anywhere?a=1&b=%26 HTTP"}},
		{name: "query alone", path: "/anywhere?api%5Fkey=a%2bkey%2Fof%3Dacme-1234", status: 200, sees: []string{acme, "/anywhere HTTP"}},
		{name: "query twice", path: "/anywhere?api_key=a%2Bkey/of=acme-1234&api%5fkey=x", status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "cookie", path: "/anywhere", headers: []string{"Cookie: a=1; key=" + acmeKey + "; b=2"}, status: 200,
			sees: []string{acme, "a=1", "b=2"}, hidden: []string{acmeKey, "key="}},
		{name: "quoted cookie", path: "/anywhere", headers: []string{`Cookie: key="` + acmeKey + `"`}, status: 200, sees: []string{acme}, hidden: []string{"cookie"}},
		{name: "two cookies", path: "/anywhere", headers: []string{"Cookie: key=" + acmeKey + "; key=x"}, status: 401, reason: "key_ambiguous", asks: "ApiKey "},
		{name: "first place counts, all are hidden", path: "/anywhere?api_key=spare", headers: []string{"X-Key: " + acmeKey, "Cookie: key=spare"}, status: 200,
			sees: []string{acme, "/anywhere HTTP"}, hidden: []string{"spare"}},
		{name: "wrong in the first place", path: "/anywhere?api_key=a%2Bkey/of=acme-1234", headers: []string{"X-Key: wrong"}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "shown", path: "/shown?api_key=x", headers: []string{"X-Key: " + acmeKey}, status: 200, sees: []string{acme, acmeKey, "?api_key=x"}},
		{name: "optional, none", path: "/optional", status: 200, hidden: []string{"consumer"}},
		{name: "optional, wrong", path: "/optional", headers: []string{"X-API-Key: x"}, status: 401, reason: "key_unknown", asks: "ApiKey "},
		{name: "optional, right", path: "/optional", headers: []string{"X-API-Key: " + acmeKey}, status: 200, sees: []string{acme}},
	})
}

// TestCredentialsAreNotLogged: a key in the query is in no log, right or wrong; the consumer is.
func TestCredentialsAreNotLogged(t *testing.T) {
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "HASH", keyHash("a-right-key-of-acme")).Replace(`
access_log: { to: FOLDER/access.log }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { a: UPSTREAM }
consumers: { acme: { keys: "HASH" } }
routes: [{ name: r, match: "/*", use: [{ keyauth: { query: key } }], to: a }]
`))
	if _, err := g.admin.SetLogLevel("r", "debug"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/x?key=a-right-key-of-acme&seen=1": 200, "/x?k%65y=a-wrong-key-of-acme": 401, "/x?seen=2": 401} {
		res, err := http.Get("http://" + g.addr + path)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%v, %v", res, err)
		}
		_ = res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	g.stop()
	text, err := os.ReadFile(filepath.Join(g.folder, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	for name, log := range map[string]string{"access": string(text), "error": g.log.String()} {
		if strings.Contains(log, "-key-of-acme") || !strings.Contains(log, "seen=2") {
			t.Errorf("the %s log:\n%s", name, log)
		}
	}
	for _, want := range []string{`"consumer":"acme"`, `"query":"***"`, `"reason":"key_unknown"`, `"reason":"key_missing"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in the access log:\n%s", want, text)
		}
	}
}
