package server

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestJWTHuge: a token of a mebibyte is refused by the bounds of a head before it is all there, wherever it stands; where heads may be that
// long, by the policy, which does not look into it.
func TestJWTHuge(t *testing.T) {
	i := newTokenIssuer(t)
	g := run(t, strings.NewReplacer("UPSTREAM", newMirror(t), "JWKS", i.url).Replace(`
access_log: { to: off }
listeners:
  http: { bind: "127.0.0.1:0" }
  wide: { bind: "127.0.0.1:0", protocols: [h1, h2c], limits: { header_bytes: 256KiB } }
upstreams: { a: UPSTREAM }
routes: [{ match: "/*", use: [{ jwt: { audience: api, jwks: "JWKS", header: Authorization, cookie: token, query: token } }], to: a }]
`))
	right := i.token(nil)
	head, rest, _ := strings.Cut(right, ".")
	claims, sig, _ := strings.Cut(rest, ".")
	huge := func(bytes int) map[string]string {
		text := head + "." + claims + strings.Repeat("A", bytes-len(right)) + "." + sig
		return map[string]string{"header": "GET / HTTP/1.1\r\nAuthorization: Bearer " + text, "cookie": "GET / HTTP/1.1\r\nCookie: a=b; token=" + text,
			"query": "GET /?token=" + text + " HTTP/1.1"}
	}
	f := func(where, addr, request string, status int, reason string) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // the test is over
		_ = c.SetDeadline(time.Now().Add(patience))
		sent := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(c, strings.NewReader(request+"\r\nHost: a.test\r\n\r\n")) // it may be cut off
			sent <- n
		}()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != status || reason != "" && !strings.Contains(string(body), `"`+reason+`"`) {
			t.Errorf("%s: %d %s, want %d %s", where, res.StatusCode, body, status, reason)
		}
		_ = c.Close()
		<-sent
	}
	wide := g.bind("wide")
	for where, request := range huge(1 << 20) {
		status := 431
		if where == "query" {
			status = 414
		}
		f(where, g.addr, request, status, "")
		f(where+", wide", wide, request, status, "")
	}
	for where, request := range huge(256<<10 - 1<<10) {
		f(where+", fits", wide, request, 401, "token_malformed")
	}
	f("right", wide, "GET / HTTP/1.1\r\nAuthorization: Bearer "+right, 200, "")
}

// TestJWTRandomKeys: tokens that name ten thousand keys nobody knows cost a fetch or two of the keys, and nothing is kept of them.
func TestJWTRandomKeys(t *testing.T) {
	const tokens, clients = 10_000, 16
	i := newTokenIssuer(t)
	g := runJWT(t, i)
	client := newH1Client(t)
	right := i.token(nil)
	_, rest, _ := strings.Cut(right, ".")
	var wrong atomic.Int64
	ask := func(token string, status int) {
		req, _ := http.NewRequest("GET", "http://"+g.addr+"/users", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(req)
		if err != nil {
			wrong.Add(1)
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if _ = res.Body.Close(); res.StatusCode != status {
			wrong.Add(1)
		}
	}
	ask(right, 200)
	flood := func(n int) {
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for range n / clients {
					ask(b64(fmt.Appendf(nil, `{"alg":"RS256","kid":"%x"}`, rand.Uint64()))+"."+rest, 401)
				}
			})
		}
		all.Wait()
	}
	flood(100 * clients) // what the process has once
	fetches, begin, before := i.fetches.Load(), time.Now(), liveMiB()
	flood(tokens)
	took, kept := time.Since(begin), liveMiB()-before
	t.Logf("%d tokens in %v, %.2f MiB more are kept", tokens, took.Round(time.Millisecond), kept)
	if n, most := i.fetches.Load()-fetches, int64(took/(10*time.Second))+1; n > most {
		t.Errorf("%d fetches in %v", n, took)
	}
	if kept > 2 {
		t.Errorf("%.1f MiB more are kept", kept)
	}
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d answers are wrong", n)
	}
	ask(right, 200)
	if n := wrong.Load(); n > 0 {
		t.Error("a right token is refused after that")
	}
}
