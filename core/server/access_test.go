package server

import (
	"crypto/sha256"
	cryptotls "crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestIPPolicy judges the client behind trusted proxies, not the proxy.
func TestIPPolicy(t *testing.T) {
	text := strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), `bind: "127.0.0.1:0"`,
		`bind: "127.0.0.1:0"`+"\n    real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] }", 1)
	g := newGate(t, strings.Replace(text, `[{ match: "/*", to: a }]`, `
  - { match: /both, use: [{ ip: { allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.1.0.0/16, 10.2.3.4] } }], to: a }
  - { match: /deny, use: [{ ip: { deny: 10.0.0.0/8 } }], to: a }
  - { match: /local, use: [{ ip: { allow: 127.0.0.1 } }], to: a }
`, 1))
	from := func(a string) []string { return []string{"X-Forwarded-For: " + a} }
	judge(t, g.addr, []identityCase{
		{name: "allowed", path: "/both", headers: from("10.3.0.1"), status: 200},
		{name: "allowed, IPv6", path: "/both", headers: from("2001:db8::7"), status: 200},
		{name: "denied of the allowed", path: "/both", headers: from("10.1.255.255"), status: 403, reason: "address_denied"},
		{name: "denied, one address", path: "/both", headers: from("10.2.3.4"), status: 403, reason: "address_denied"},
		{name: "beside it", path: "/both", headers: from("10.2.3.5"), status: 200},
		{name: "IPv4 within IPv6", path: "/both", headers: from("::ffff:10.1.0.1"), status: 403, reason: "address_denied"},
		{name: "not allowed", path: "/both", headers: from("192.0.2.1"), status: 403, reason: "address_denied"},
		{name: "the proxy", path: "/both", status: 403, reason: "address_denied"},
		{name: "only denied", path: "/deny", headers: from("10.0.0.1"), status: 403, reason: "address_denied"},
		{name: "not denied", path: "/deny", headers: from("11.0.0.1"), status: 200},
		{name: "itself", path: "/local", status: 200},
		{name: "behind it", path: "/local", headers: from("10.0.0.1"), status: 403, reason: "address_denied"},
	})
}

// TestAccess lets consumers pass who are in any of the lists.
func TestAccess(t *testing.T) {
	g := identityGate(t, map[string]string{
		"/group":    "{ keyauth: on }, { access: { groups: [partners, staff] } }",
		"/name":     "{ keyauth: on }, { access: { consumers: beta } }",
		"/tier":     "{ keyauth: on }, { access: { tiers: [gold], consumers: beta } }",
		"/optional": "{ keyauth: { optional: true } }, { access: { groups: [partners] } }",
	}, "  acme: { groups: [eu, partners], tier: gold, keys: \""+keyHash("the-key-of-acme-1")+"\" }\n"+
		"  beta: { groups: [partner], tier: silver, keys: \""+keyHash("the-key-of-beta-1")+"\" }\n"+
		"  gamma: { keys: \""+keyHash("the-key-of-gamma")+"\" }\n")
	acme, beta, gamma := []string{"X-API-Key: the-key-of-acme-1"}, []string{"X-API-Key: the-key-of-beta-1"}, []string{"X-API-Key: the-key-of-gamma"}
	judge(t, g.addr, []identityCase{
		{name: "group", path: "/group", headers: acme, status: 200},
		{name: "no group", path: "/group", headers: beta, status: 403, reason: "access_denied"},
		{name: "name", path: "/name", headers: beta, status: 200},
		{name: "another name", path: "/name", headers: acme, status: 403, reason: "access_denied"},
		{name: "tier", path: "/tier", headers: acme, status: 200},
		{name: "another tier, but the name", path: "/tier", headers: beta, status: 200},
		{name: "no tier", path: "/tier", headers: gamma, status: 403, reason: "access_denied"},
		{name: "nobody", path: "/optional", status: 403, reason: "consumer_required"},
		{name: "somebody", path: "/optional", headers: acme, status: 200},
		{name: "without a key", path: "/group", status: 401, reason: "key_missing", asks: "ApiKey "},
	})
}

// TestMTLSPolicy knows consumers by their certificates, over both protocols.
func TestMTLSPolicy(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	one, two := certificateOf(a, "one.test"), certificateOf(a, "two.test")
	three, four := certificateOf(a, "three.test"), certificateOf(a, "four.test")
	sum := sha256.Sum256(one.Certificate[0])
	g := run(t, strings.NewReplacer("DIR", folder, "PRINT", hex.EncodeToString(sum[:]), "UPSTREAM", newMirror(t)).Replace(`
access_log: { to: off }
listeners:
  http: { bind: "127.0.0.1:0", forward: { xfcc: true }, tls: { certificates: [{ cert: DIR/a.pem, key: DIR/a.key }], client_auth: { mode: optional, ca: DIR/ca.pem } } }
upstreams: { a: UPSTREAM }
policies: { certified: { mtls: on }, perhaps: { mtls: { optional: true } } }
consumers: { acme: { groups: partners, certificates: PRINT }, third: { certificates: "san:Three.test" }, fourth: { certificates: "cn:four.test" } }
routes:
  - { match: /certified, use: certified, to: a }
  - { match: /perhaps, use: perhaps, to: a }
  - { match: /partners, use: [perhaps, { access: { groups: partners } }], to: a }
`))
	for _, http2 := range []bool{false, true} {
		f := func(cert *cryptotls.Certificate, path string, want int, text string) {
			t.Helper()
			c := a.client(g.addr, http2, func(c *cryptotls.Config) {
				if cert != nil {
					c.Certificates = []cryptotls.Certificate{*cert}
				}
			})
			r, body, err := ask(c, "https://a.test"+path, nil)
			if err != nil || r.StatusCode != want || !strings.Contains(string(body), text) {
				t.Errorf("HTTP/2 %v, %s: %v, %q, %v, want %d %s", http2, path, r, body, err, want, text)
			}
		}
		f(&one, "/certified", 200, "X-Consumer-Name: acme\r\n")
		f(&one, "/partners", 200, "X-Consumer-Name: acme\r\n")
		f(&one, "/certified", 200, `X-Forwarded-Client-Cert: Hash=`+hex.EncodeToString(sum[:])+`;Subject="CN=one.test";DNS="one.test"`+"\r\n")
		f(&three, "/certified", 200, "X-Consumer-Name: third\r\n")
		f(&four, "/certified", 200, "X-Consumer-Name: fourth\r\n")
		f(&two, "/certified", 403, "client_cert_unknown")
		f(&two, "/perhaps", 403, "client_cert_unknown")
		f(nil, "/certified", 403, "client_cert_required")
		q, _ := http.NewRequest("GET", "https://a.test/perhaps", nil)
		q.Header["X-Forwarded-Client-Cert"], q.Header["X_forwarded_client_cert"] = []string{"Hash=forged"}, []string{"Hash=forged"}
		r, err := a.client(g.addr, http2, func(*cryptotls.Config) {}).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if strings.Contains(string(body), "forged") {
			t.Errorf("HTTP/2 %v: the upstream has got what a client says of its certificate:\n%s", http2, body)
		}
		f(nil, "/perhaps", 200, "GET /perhaps")
		f(nil, "/partners", 403, "consumer_required")
	}
}
