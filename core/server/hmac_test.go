package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	stdhmac "crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHMAC signs requests with a secret and with a private key, and shows what becomes of the right ones, of others, and of bodies.
func TestHMAC(t *testing.T) {
	const secret = "a secret of at least thirty-two bytes"
	t.Setenv("SLUICE_TEST_SECRET", secret)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "to: a", `use: [{ hmac: { nonce: true, body: 4KiB } }], to: a`, 1)+
		`consumers: { acme: { signatures: [{ id: s1, secret: "env:SLUICE_TEST_SECRET" }, { id: p1, key: "file:`+file+`" }] } }`+"\n")
	sign := func(key, base string) []byte {
		sum := sha256.Sum256([]byte(base))
		if key == "p1" {
			r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			sig := make([]byte, 64)
			r.FillBytes(sig[:32])
			s.FillBytes(sig[32:])
			return sig
		}
		m := stdhmac.New(sha256.New, []byte(secret))
		m.Write([]byte(base))
		return m.Sum(nil)
	}
	nonce := 0
	f := func(what, key, body string, change func(r *http.Request), status int, reason string) {
		t.Helper()
		for _, client := range []http.RoundTripper{http.DefaultTransport, newH2Client(t).Transport} {
			nonce++
			req, err := http.NewRequest("PUT", "http://"+g.addr+"/a%41?x=%2f&y", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256([]byte(body))
			params := fmt.Sprintf(`("@method" "@authority" "@path" "@query" "content-digest");created=%d;keyid="%s";nonce="%d"`, time.Now().Unix(), key, nonce)
			digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
			base := "\"@method\": PUT\n\"@authority\": " + g.addr + "\n\"@path\": /a%41\n\"@query\": ?x=%2f&y\n\"content-digest\": " + digest + "\n\"@signature-params\": " + params
			req.Header.Set("Content-Digest", digest)
			req.Header.Set("Signature-Input", "sig="+params)
			req.Header.Set("Signature", "sig=:"+base64.StdEncoding.EncodeToString(sign(key, base))+":")
			if change != nil {
				change(req)
			}
			res, got := roundTrip(t, client, req)
			if status == 200 && (strings.Contains(strings.ToLower(got), "signature") || !strings.Contains(got, "Content-Digest: "+digest)) {
				t.Errorf("%s: the upstream has got %s", what, got)
			}
			if res.StatusCode != status || reason != "" && !strings.Contains(got, `"error":"`+reason+`"`) || status == 200 && !strings.Contains(got, "X-Consumer-Name: acme\r\n") ||
				status == 401 && res.Header.Get("WWW-Authenticate") != `Signature realm="sluice"` {
				t.Errorf("%s: %d %s", what, res.StatusCode, got)
			}
		}
	}
	body := func(s string) func(r *http.Request) {
		return func(r *http.Request) {
			other, _ := http.NewRequest("PUT", "http://x/", strings.NewReader(s))
			r.Body, r.ContentLength, r.GetBody = other.Body, other.ContentLength, other.GetBody
		}
	}
	f("secret", "s1", "hello", nil, 200, "")
	f("private key", "p1", "hello", nil, 200, "")
	f("no body", "s1", "", nil, 200, "")
	f("a large body", "s1", strings.Repeat("x", 4<<10), nil, 200, "")
	f("too large", "s1", strings.Repeat("x", 4<<10+1), nil, 413, "body_too_large")
	f("another body", "s1", "hello", body("hellO"), 401, "content_digest")
	f("a longer body", "s1", "hello", body("hello "), 401, "content_digest")
	f("a body where none was signed", "s1", "", body("x"), 401, "content_digest")
	f("none", "s1", "", func(r *http.Request) { r.Header.Del("Signature"); r.Header.Del("Signature-Input") }, 401, "signature_missing")
	f("half", "s1", "", func(r *http.Request) { r.Header.Del("Signature") }, 401, "signature_malformed")
	f("unknown", "x", "", nil, 401, "signature_key_unknown")
	f("another query", "s1", "", func(r *http.Request) { r.URL.RawQuery = "x=/&y" }, 401, "signature_wrong")
	f("another path", "s1", "", func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/aA", "" }, 401, "signature_wrong")
	var first http.Header
	f("a nonce again", "s1", "", func(r *http.Request) {
		if first == nil {
			first = r.Header.Clone()
			if res, got := roundTrip(t, http.DefaultTransport, r.Clone(t.Context())); res.StatusCode != 200 {
				t.Errorf("%d %s", res.StatusCode, got)
			}
		}
		r.Header = first.Clone()
	}, 401, "signature_replayed")
}

// TestHMACHides: the signature that was judged ends here unless it is to stay, also where another policy has let the request pass, or where
// an upstream might read a name in another spelling. What somebody else has signed stays as it was.
func TestHMACHides(t *testing.T) {
	const secret = "a secret of at least thirty-two bytes"
	t.Setenv("SLUICE_TEST_SECRET", secret)
	g := identityGate(t, map[string]string{
		"/hidden": `{ hmac: on }`,
		"/tagged": `{ hmac: { tag: front } }`,
		"/shown":  `{ hmac: { hide: false } }`,
		"/any":    `{ any: [{ keyauth: on }, { hmac: on }] }`,
	}, `  acme: { keys: "`+keyHash(acmeKey)+`", signatures: { id: s1, secret: "env:SLUICE_TEST_SECRET" } }`+"\n")
	sign := func(path, rest string) (input, value string) {
		input = fmt.Sprintf(`("@method" "@authority" "@path" "@query");created=%d;keyid="s1"%s`, time.Now().Unix(), rest)
		m := stdhmac.New(sha256.New, []byte(secret))
		_, _ = fmt.Fprintf(m, "\"@method\": GET\n\"@authority\": %s\n\"@path\": %s\n\"@query\": ?\n\"@signature-params\": %s", g.addr, path, input)
		return input, ":" + base64.StdEncoding.EncodeToString(m.Sum(nil)) + ":"
	}
	const digest = "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
	const theirs, their = `("date" "@path";req);keyid="origin";alg="x"`, ":b3JpZ2lu:"
	both := func(path, rest string) []string {
		input, value := sign(path, rest)
		return []string{digest, "signature_input: sig=" + input,
			"Signature-Input: first=" + theirs + ", sig=" + input, "Signature: first=" + their, "Signature: sig=" + value}
	}
	stays := []string{"Signature-Input: first=" + theirs + "\r\n", "Signature: first=" + their + "\r\n", digest + "\r\n"}
	_, front := sign("/tagged", `;tag="front"`)
	inner, back := sign("/tagged", `;tag="back"`)
	tagged := both("/tagged", `;tag="front"`)
	tagged[2] += ", inner=" + inner
	tagged[4] += ", inner=" + back
	_, hidden := sign("/hidden", "")
	judge(t, g.addr, []identityCase{
		{name: "hidden", path: "/hidden", headers: both("/hidden", ""), status: 200, sees: stays, hidden: []string{"s1", hidden, "signature_"}},
		{name: "of another tag", path: "/tagged", headers: tagged, status: 200, hidden: []string{front, "signature_"},
			sees: []string{"Signature-Input: first=" + theirs + ", inner=" + inner + "\r\n", "Signature: first=" + their + ", inner=" + back + "\r\n"}},
		{name: "shown", path: "/shown", headers: both("/shown", ""), status: 200, sees: []string{`keyid="s1"`, "Signature: sig=:"}},
		{name: "not judged", path: "/any", headers: append(both("/any", ""), "X-API-Key: "+acmeKey), status: 200, sees: stays, hidden: []string{"s1", "signature_"}},
		{name: "nothing else", path: "/any", headers: append(both("/any", "")[:2], "X-API-Key: "+acmeKey), status: 200, hidden: []string{"signature"}},
		{name: "half", path: "/any", headers: []string{"Signature: sig=:AAAA:", "X-API-Key: " + acmeKey}, status: 200, hidden: []string{"signature"}},
		{name: "malformed", path: "/any", headers: []string{"Signature: sig=:AAAA", "Signature-Input: first=" + theirs, "X-API-Key: " + acmeKey}, status: 200, hidden: []string{"signature"}},
	})
}
