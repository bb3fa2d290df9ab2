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

const aws4Secret = "a secret of at least thirty-two bytes"

// aws4Client has its requests signed by AWS's own signer.
type aws4Client struct {
	t    *testing.T
	addr string
	keys aws.Credentials
}

func newAWS4Client(t *testing.T) *aws4Client {
	t.Helper()
	t.Setenv("SLUICE_TEST_SECRET", aws4Secret)
	config := strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), "to: a", `use: [{ hmac: { scheme: aws4, region: r, service: execute-api, presigned: 1h, body: 4KiB } }], to: a`, 1)
	config = strings.Replace(config, "routes: [", `routes: [{ match: "/s3/*", use: [{ hmac: { scheme: aws4, region: r, service: s3, presigned: 1h, body: 0, hide: false } }], to: a },
  { match: "/open/*", use: [{ any: [{ hmac: { scheme: aws4, region: r, service: execute-api, presigned: 1h } }, { keyauth: on }] }], to: a }, `, 1)
	g := newGate(t, config+`consumers: { acme: { signatures: { id: s1, secret: "env:SLUICE_TEST_SECRET" } } }`+"\n")
	return &aws4Client{t, g.addr, aws.Credentials{AccessKeyID: "s1", SecretAccessKey: aws4Secret}}
}

func hexHash(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func (c *aws4Client) request(path, body string) *http.Request {
	c.t.Helper()
	req, err := http.NewRequest("PUT", "http://"+c.addr+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Amz-Meta-Note", "two   spaces")
	return req
}

// service is whose the path is, and how it is signed there.
func (c *aws4Client) service(path string) (string, func(*v4.SignerOptions)) {
	if strings.HasPrefix(path, "/s3/") {
		return "s3", func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
	}
	return "execute-api", func(*v4.SignerOptions) {}
}

// signed gives a request that says the hash of its body, unless that is "".
func (c *aws4Client) signed(path, body, hash string, at time.Time, id aws.Credentials) *http.Request {
	c.t.Helper()
	req := c.request(path, body)
	name, option := c.service(path)
	if hash != "" {
		req.Header.Set("X-Amz-Content-Sha256", hash)
	} else {
		hash = hexHash(body)
	}
	if err := v4.NewSigner().SignHTTP(context.Background(), id, req, hash, name, "r", at, option); err != nil {
		c.t.Fatal(err)
	}
	return req
}

// presigned gives a request that is signed in the query.
func (c *aws4Client) presigned(path, expires, hash string, at time.Time) *http.Request {
	c.t.Helper()
	req := c.request(path, "")
	q := req.URL.Query()
	q.Set("X-Amz-Expires", expires)
	req.URL.RawQuery = q.Encode()
	name, option := c.service(path)
	to, _, err := v4.NewSigner().PresignHTTP(context.Background(), c.keys, req, hash, name, "r", at, option)
	if err != nil {
		c.t.Fatal(err)
	}
	if req.URL, err = url.Parse(to); err != nil {
		c.t.Fatal(err)
	}
	return req
}

// send sends a request over both protocols, and holds the answer against what is wanted.
func (c *aws4Client) send(what string, req *http.Request, status int, reason, shown, hidden string) {
	c.t.Helper()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, client := range []http.RoundTripper{http.DefaultTransport, newH2Client(c.t).Transport} {
		again := req.Clone(c.t.Context())
		other, _ := http.NewRequest("PUT", "http://x/", strings.NewReader(string(body)))
		again.Body, again.ContentLength, again.GetBody = other.Body, other.ContentLength, other.GetBody
		res, got := roundTrip(c.t, client, again)
		if res.StatusCode != status || reason != "" && !strings.Contains(got, `"error":"`+reason+`"`) || status == 200 && !strings.Contains(got, "X-Consumer-Name: acme\r\n") ||
			status == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "AWS4-HMAC-SHA256") || !strings.Contains(got, shown) || hidden != "" && strings.Contains(got, hidden) {
			c.t.Errorf("%s: %d %s", what, res.StatusCode, got)
		}
	}
}

// TestAWS4 shows what becomes of requests that AWS's own signer has signed, of others, and of bodies.
func TestAWS4(t *testing.T) {
	c := newAWS4Client(t)
	const path = "/a%20b/c%2Fd:e?z=1&b=%26+x&b=a&c"
	now := time.Now()
	c.send("without a hash", c.signed(path, "hello", "", now, c.keys), 200, "", "/a%20b/c%2Fd:e?", "Authorization")
	c.send("with a hash", c.signed(path, "hello", hexHash("hello"), now, c.keys), 200, "", "Content-Length: 5", "Authorization")
	c.send("a large body", c.signed("/", strings.Repeat("x", 4<<10), hexHash(strings.Repeat("x", 4<<10)), now, c.keys), 200, "", "", "")
	c.send("too large", c.signed("/", strings.Repeat("x", 4<<10+1), hexHash(strings.Repeat("x", 4<<10+1)), now, c.keys), 413, "body_too_large", "", "")
	c.send("too large, without a hash", c.signed("/", strings.Repeat("x", 4<<10+1), "", now, c.keys), 413, "body_too_large", "", "")
	c.send("not signed", c.signed("/", "hello", "UNSIGNED-PAYLOAD", now, c.keys), 401, "content_digest", "", "")
	c.send("old", c.signed("/", "", "", now.Add(-6*time.Minute), c.keys), 401, "signature_expired", "", "")
	c.send("early", c.signed("/", "", "", now.Add(time.Minute), c.keys), 401, "signature_not_yet_valid", "", "")
	c.send("another secret", c.signed("/", "", "", now, aws.Credentials{AccessKeyID: "s1", SecretAccessKey: aws4Secret + "."}), 401, "signature_wrong", "", "")
	c.send("another key", c.signed("/", "", "", now, aws.Credentials{AccessKeyID: "s2", SecretAccessKey: aws4Secret}), 401, "signature_key_unknown", "", "")
	c.send("none", c.request("/", ""), 401, "signature_missing", "", "")
	for _, hash := range []string{"", hexHash("hello")} {
		reason := map[bool]string{true: "signature_wrong", false: "content_digest"}[hash == ""]
		req := c.signed("/", "hello", hash, now, c.keys)
		req.Body = io.NopCloser(strings.NewReader("hellO"))
		c.send("another body", req, 401, reason, "", "")
		req = c.signed("/", "hello", hash, now, c.keys)
		req.Body = io.NopCloser(strings.NewReader("hel"))
		req.Header.Del("Content-Length")
		c.send("half of it", req, 401, "signature_wrong", "", "") // its length is signed
	}
	req := c.signed(path, "", "", now, c.keys)
	req.URL.RawQuery += "&d"
	c.send("another query", req, 401, "signature_wrong", "", "")
	req = c.signed(path, "", "", now, c.keys)
	req.Header.Set("X-Amz-Meta-Note", "three")
	c.send("another field", req, 401, "signature_wrong", "", "")

	c.send("s3", c.signed("/s3/a%20b//c%3Ad", "hello", "UNSIGNED-PAYLOAD", now, c.keys), 200, "", "Authorization: AWS4-HMAC-SHA256 Credential=s1/", "")
	c.send("s3, another path", func() *http.Request {
		req := c.signed("/s3/a%20b//c%3Ad", "", hexHash(""), now, c.keys)
		req.URL.Path, req.URL.RawPath = "/s3/a b/c:d", ""
		return req
	}(), 401, "signature_wrong", "", "")
}

// TestAWS4Presigned does so with signatures in the query.
func TestAWS4Presigned(t *testing.T) {
	c := newAWS4Client(t)
	const path = "/a%20b/c%2Fd:e?z=1&b=%26+x&b=a&c"
	now := time.Now()
	c.send("presigned", c.presigned(path, "600", hexHash(""), now.Add(-599*time.Second)), 200, "", "X-Amz-Expires=600", "X-Amz-Signature")
	c.send("presigned, over", c.presigned(path, "600", hexHash(""), now.Add(-640*time.Second)), 401, "signature_expired", "", "")
	c.send("presigned for too long", c.presigned(path, "3601", hexHash(""), now), 401, "signature_lifetime", "", "")
	c.send("presigned for s3", c.presigned("/s3/a%3Ab", "600", "UNSIGNED-PAYLOAD", now), 200, "", "X-Amz-Signature=", "")
	req := c.presigned(path, "600", hexHash(""), now)
	req.Body = io.NopCloser(strings.NewReader("x"))
	c.send("presigned, with a body", req, 401, "signature_wrong", "", "")
	c.send("any of several", c.signed("/open/a", "", "", now, c.keys), 200, "", "", "Authorization")
	req = c.request("/open/a?a+b;c", "")
	c.send("none of several", req, 401, "signature_missing", "", "")
}
