package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// TestAWS4 has requests signed by AWS's own signer, in the field and in the query, and shows what becomes of the right ones, of others, and of
// bodies.
func TestAWS4(t *testing.T) {
	const secret = "a secret of at least thirty-two bytes"
	t.Setenv("SLUICE_TEST_SECRET", secret)
	config := strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "to: a", `use: [{ hmac: { scheme: aws4, region: r, service: execute-api, presigned: 1h, body: 4KiB } }], to: a`, 1)
	config = strings.Replace(config, "routes: [", `routes: [{ match: "/s3/*", use: [{ hmac: { scheme: aws4, region: r, service: s3, presigned: 1h, body: 0, hide: false } }], to: a },
  { match: "/open/*", use: [{ any: [{ hmac: { scheme: aws4, region: r, service: execute-api, presigned: 1h } }, { keyauth: on }] }], to: a }, `, 1)
	g := newGate(t, config+`consumers: { acme: { signatures: { id: s1, secret: "env:SLUICE_TEST_SECRET" } } }`+"\n")
	keys := aws.Credentials{AccessKeyID: "s1", SecretAccessKey: secret}
	hashOf := func(body string) string {
		sum := sha256.Sum256([]byte(body))
		return hex.EncodeToString(sum[:])
	}
	request := func(path, body string) *http.Request {
		req, err := http.NewRequest("PUT", "http://"+g.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Amz-Meta-Note", "two   spaces")
		return req
	}
	service := func(path string) (string, func(*v4.SignerOptions)) {
		if strings.HasPrefix(path, "/s3/") {
			return "s3", func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
		}
		return "execute-api", func(*v4.SignerOptions) {}
	}
	send := func(what string, req *http.Request, status int, reason, shown, hidden string) {
		t.Helper()
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, client := range []http.RoundTripper{http.DefaultTransport, newH2Client(t).Transport} {
			again := req.Clone(t.Context())
			other, _ := http.NewRequest("PUT", "http://x/", strings.NewReader(string(body)))
			again.Body, again.ContentLength, again.GetBody = other.Body, other.ContentLength, other.GetBody
			res, got := roundTrip(t, client, again)
			if res.StatusCode != status || reason != "" && !strings.Contains(got, `"error":"`+reason+`"`) || status == 200 && !strings.Contains(got, "X-Consumer-Name: acme\r\n") ||
				status == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "AWS4-HMAC-SHA256") || !strings.Contains(got, shown) || hidden != "" && strings.Contains(got, hidden) {
				t.Errorf("%s: %d %s", what, res.StatusCode, got)
			}
		}
	}
	signed := func(path, body, hash string, at time.Time, id aws.Credentials) *http.Request {
		req := request(path, body)
		name, option := service(path)
		if hash != "" {
			req.Header.Set("X-Amz-Content-Sha256", hash)
		} else {
			hash = hashOf(body)
		}
		if err := v4.NewSigner().SignHTTP(context.Background(), id, req, hash, name, "r", at, option); err != nil {
			t.Fatal(err)
		}
		return req
	}
	const path = "/a%20b/c%2Fd:e?z=1&b=%26+x&b=a&c"
	now := time.Now()
	send("without a hash", signed(path, "hello", "", now, keys), 200, "", "/a%20b/c%2Fd:e?", "Authorization")
	send("with a hash", signed(path, "hello", hashOf("hello"), now, keys), 200, "", "Content-Length: 5", "Authorization")
	send("a large body", signed("/", strings.Repeat("x", 4<<10), hashOf(strings.Repeat("x", 4<<10)), now, keys), 200, "", "", "")
	send("too large", signed("/", strings.Repeat("x", 4<<10+1), hashOf(strings.Repeat("x", 4<<10+1)), now, keys), 413, "body_too_large", "", "")
	send("too large, without a hash", signed("/", strings.Repeat("x", 4<<10+1), "", now, keys), 413, "body_too_large", "", "")
	send("not signed", signed("/", "hello", "UNSIGNED-PAYLOAD", now, keys), 401, "content_digest", "", "")
	send("old", signed("/", "", "", now.Add(-6*time.Minute), keys), 401, "signature_expired", "", "")
	send("early", signed("/", "", "", now.Add(time.Minute), keys), 401, "signature_not_yet_valid", "", "")
	send("another secret", signed("/", "", "", now, aws.Credentials{AccessKeyID: "s1", SecretAccessKey: secret + "."}), 401, "signature_wrong", "", "")
	send("another key", signed("/", "", "", now, aws.Credentials{AccessKeyID: "s2", SecretAccessKey: secret}), 401, "signature_key_unknown", "", "")
	send("none", request("/", ""), 401, "signature_missing", "", "")
	for _, hash := range []string{"", hashOf("hello")} {
		reason := map[bool]string{true: "signature_wrong", false: "content_digest"}[hash == ""]
		req := signed("/", "hello", hash, now, keys)
		req.Body = io.NopCloser(strings.NewReader("hellO"))
		send("another body", req, 401, reason, "", "")
		req = signed("/", "hello", hash, now, keys)
		req.Body = io.NopCloser(strings.NewReader("hel"))
		req.Header.Del("Content-Length")
		send("half of it", req, 401, "signature_wrong", "", "") // its length is signed
	}
	req := signed(path, "", "", now, keys)
	req.URL.RawQuery += "&d"
	send("another query", req, 401, "signature_wrong", "", "")
	req = signed(path, "", "", now, keys)
	req.Header.Set("X-Amz-Meta-Note", "three")
	send("another field", req, 401, "signature_wrong", "", "")

	send("s3", signed("/s3/a%20b//c%3Ad", "hello", "UNSIGNED-PAYLOAD", now, keys), 200, "", "Authorization: AWS4-HMAC-SHA256 Credential=s1/", "")
	send("s3, another path", func() *http.Request {
		req := signed("/s3/a%20b//c%3Ad", "", hashOf(""), now, keys)
		req.URL.Path, req.URL.RawPath = "/s3/a b/c:d", ""
		return req
	}(), 401, "signature_wrong", "", "")

	presigned := func(path, expires, hash string, at time.Time) *http.Request {
		req := request(path, "")
		q := req.URL.Query()
		q.Set("X-Amz-Expires", expires)
		req.URL.RawQuery = q.Encode()
		name, option := service(path)
		to, _, err := v4.NewSigner().PresignHTTP(context.Background(), keys, req, hash, name, "r", at, option)
		if err != nil {
			t.Fatal(err)
		}
		if req.URL, err = url.Parse(to); err != nil {
			t.Fatal(err)
		}
		return req
	}
	send("presigned", presigned(path, "600", hashOf(""), now.Add(-599*time.Second)), 200, "", "X-Amz-Expires=600", "X-Amz-Signature")
	send("presigned, over", presigned(path, "600", hashOf(""), now.Add(-640*time.Second)), 401, "signature_expired", "", "")
	send("presigned for too long", presigned(path, "3601", hashOf(""), now), 401, "signature_lifetime", "", "")
	send("presigned for s3", presigned("/s3/a%3Ab", "600", "UNSIGNED-PAYLOAD", now), 200, "", "X-Amz-Signature=", "")
	req = presigned(path, "600", hashOf(""), now)
	req.Body = io.NopCloser(strings.NewReader("x"))
	send("presigned, with a body", req, 401, "signature_wrong", "", "")
	send("any of several", signed("/open/a", "", "", now, keys), 200, "", "", "Authorization")
	req = request("/open/a?a+b;c", "")
	send("none of several", req, 401, "signature_missing", "", "")
}
