package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
)

// combination is a client and an upstream that speak either protocol each, and a gateway between them.
type combination struct {
	*gate
	up     *manyUpstream
	client *http.Client
	base   string
	h2     bool // the client speaks HTTP/2
	h2up   bool // the upstream does
}

// eachCombination runs f with every combination of protocols. more is of the settings of an HTTP/2 upstream.
func eachCombination(t *testing.T, more string, f func(t *testing.T, c *combination)) {
	t.Helper()
	eachCombinationWith(t, more, "", "", f)
}

// eachCombinationWith is eachCombination with a chain of policies, and what the configuration has besides.
func eachCombinationWith(t *testing.T, more, chain, besides string, f func(t *testing.T, c *combination)) {
	t.Helper()
	for _, client := range []string{"h1", "h2c"} {
		for _, protocol := range []string{"h1", "h2c"} {
			t.Run(client+" to "+protocol, func(t *testing.T) {
				u := newManyUpstream(t)
				upstream := ""
				if protocol != "h1" {
					upstream = more
				}
				text := strings.Replace(h2Config(u.addr, "[h1, h2c]"), `"] } }`, `"], protocol: `+protocol+upstream+` } }`, 1)
				if chain != "" {
					text = strings.Replace(text, `"/*", to: a`, `"/*", use: [`+chain+`], to: a`, 1) + besides
				}
				c := &combination{gate: newGate(t, text), up: u, h2: client == "h2c", h2up: protocol == "h2c"}
				if c.base = "http://" + c.addr; c.h2 {
					c.client = newH2Client(t)
				} else {
					transport := &http.Transport{DisableCompression: true}
					t.Cleanup(transport.CloseIdleConnections)
					c.client = &http.Client{Transport: transport, Timeout: patience}
				}
				f(t, c)
				eventually(t, "nothing is under way", func() bool { return c.active() == 0 && c.counters().Streams == 0 })
			})
		}
	}
}

func TestCombinationsAnswers(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		for _, k := range []struct {
			method, path string
			status       int
			length       int64
			body         string
		}{
			{"GET", "/small", 200, int64(len(smallBody)), smallBody},
			{"POST", "/small", 200, int64(len(smallBody)), smallBody},
			{"HEAD", "/small", 200, int64(len(smallBody)), ""},
			{"HEAD", "/download/1000000", 200, 1000000, ""},
			{"GET", "/status/204", 204, 0, ""},
			{"GET", "/status/304", 304, 0, ""},
			{"GET", "/status/404", 404, 0, ""},
			{"GET", "/status/599", 599, 0, ""},
			{"GET", "/hints", 200, int64(len(smallBody)), smallBody},
		} {
			for range 2 { // on a fresh connection, and on a kept one
				res, body, err := exchange(c.client, k.method, c.base+k.path, nil)
				switch {
				case err != nil:
					t.Errorf("%s %s: %v", k.method, k.path, err)
				case res.StatusCode != k.status || body != k.body || res.ContentLength != k.length:
					t.Errorf("%s %s: %s, %q of %d bytes; want %d, %q of %d", k.method, k.path, res.Status, body, res.ContentLength, k.status, k.body, k.length)
				}
				if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[c.h2up]; k.path == "/small" && res.Header.Get("X-Proto") != want {
					t.Errorf("%s %s: the upstream was spoken to in %s, want %s", k.method, k.path, res.Header.Get("X-Proto"), want)
				}
			}
		}
		if _, body, err := exchange(c.client, "GET", c.base+"/empty", nil); err != nil || body != "" {
			t.Errorf("an empty body of unknown length: %q, %v", body, err)
		}
	})
}

// TestCombinationsPolicies takes each combination through one chain: CORS answers and marks, a key is wanted and hidden, fields are set both
// ways, and a consumer has so many requests.
func TestCombinationsPolicies(t *testing.T) {
	const limit = 3
	chain := `{ cors: { origins: ["https://app.example"], methods: [GET, PUT] } }, { keyauth: { header: X-Key } },
  { rate_limit: { limit: 3/h, key: consumer } }, { headers: { request: { set: { X-Large: "for {path}" } }, response: { set: { X-Chain: seen } } } }`
	consumers := "consumers: { acme: { keys: \"" + keyHash(acmeKey) + "\" } }\n"
	eachCombinationWith(t, "", chain, consumers, func(t *testing.T, c *combination) {
		f := func(method string, want int, fields ...string) http.Header {
			t.Helper()
			req, _ := http.NewRequest(method, c.base+"/large", nil)
			for i := 0; i < len(fields); i += 2 {
				req.Header.Set(fields[i], fields[i+1])
			}
			res, err := c.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s with %v: %s, want %d", method, fields, res.Status, want)
			}
			return res.Header
		}
		has := func(h http.Header, name, want string) {
			t.Helper()
			if got := h.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		const origin = "https://app.example"
		h := f("OPTIONS", 204, "Origin", origin, "Access-Control-Request-Method", "PUT")
		has(h, "Access-Control-Allow-Origin", origin)
		f("GET", 401, "Origin", origin)
		f("GET", 401, "X-Key", "wrong")
		if n := c.up.seen.Load(); n != 0 {
			t.Errorf("the upstream has seen %d requests", n)
		}
		for range limit {
			h = f("GET", 200, "Origin", origin, "X-Key", acmeKey, "X-Large", "mine")
			has(h, "Access-Control-Allow-Origin", origin)
			has(h, "X-Large", "for /large")
			has(h, "X-Chain", "seen")
		}
		f("GET", 429, "X-Key", acmeKey)
		if n := c.up.seen.Load(); n != limit {
			t.Errorf("the upstream has seen %d requests", n)
		}
	})
}

func TestCombinationsEarlyHints(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		var links []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			links = append(links, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", c.base+"/hints", nil)
		res, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := "103 </style.css>; rel=preload"; len(links) != 1 || links[0] != want || res.StatusCode != 200 || string(body) != smallBody || err != nil {
			t.Errorf("interim answers %q, want %q; then %s %q %v", links, want, res.Status, body, err)
		}
	})
}

// TestCombinationsBodies moves long bodies one by one and many at once, each way and both, with and without a length.
func TestCombinationsBodies(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		const size = 2 * mebibyte
		down := func(path string) error {
			res, err := c.client.Get(c.base + path)
			if err != nil {
				return err
			}
			defer func() { _ = res.Body.Close() }()
			return checkPattern(res.Body, size)
		}
		up := func(length int64) error {
			req, _ := http.NewRequest("POST", fmt.Sprintf("%s/upload?%d", c.base, size), reader{&pattern{size: size}})
			req.ContentLength = length
			res, err := c.client.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = res.Body.Close() }()
			if body, err := io.ReadAll(res.Body); err != nil || !strings.HasPrefix(string(body), fmt.Sprint(length, " [")) {
				return fmt.Errorf("the upstream got %q: %w", body, err)
			}
			return nil
		}
		duplex := func() error {
			req, _ := http.NewRequest("POST", fmt.Sprintf("%s/both/%d", c.base, size), reader{&pattern{size: size}})
			res, err := c.client.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = res.Body.Close() }()
			return checkPattern(res.Body, size+1)
		}
		sized := fmt.Sprintf("/download/%d", size)
		var wait sync.WaitGroup
		for name, do := range map[string]func() error{
			"download":                   func() error { return down(sized) },
			"download of unknown length": func() error { return down(sized + "?unknown") },
			"upload":                     func() error { return up(size) },
			"upload of unknown length":   func() error { return up(-1) },
			"both ways":                  duplex,
		} {
			if err := do(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for range 4 {
				wait.Go(func() {
					if err := do(); err != nil {
						t.Errorf("%s, among others: %v", name, err)
					}
				})
			}
		}
		wait.Wait()
		if n := c.counters(); n.Calm != [len(n.Calm)]uint64{} {
			t.Errorf("none was ended: %+v", n)
		}
	})
}

func TestCombinationsTrailers(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		for _, size := range []int64{0, 1, 100, 300000} {
			req, _ := http.NewRequest("POST", c.base+"/trailers", reader{&pattern{size: size}})
			req.Trailer = http.Header{"X-Mark": {fmt.Sprint("mark ", size)}}
			req.Header.Set("TE", "trailers")
			res, err := c.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := checkPattern(res.Body, size); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			_ = res.Body.Close()
			if sum, mark := res.Trailer.Get("X-Sum"), res.Trailer.Get("X-Echo"); sum != fmt.Sprint(size) || mark != fmt.Sprint("mark ", size) {
				t.Errorf("%d bytes: trailers %q and %q", size, sum, mark)
			}
		}
	})
}

// TestCombinationsMany makes many requests at once. Those to an HTTP/2 upstream share few connections.
func TestCombinationsMany(t *testing.T) {
	eachCombination(t, ", http2: { streams: 60 }", func(t *testing.T, c *combination) {
		const requests = 300
		var wait sync.WaitGroup
		for range requests {
			wait.Go(func() {
				res, body, err := exchange(c.client, "GET", c.base+"/hold", nil)
				if err != nil || res.StatusCode != 200 || body != smallBody {
					t.Errorf("%q, %v", body, err)
				}
			})
		}
		eventually(t, "all are under way", func() bool { return c.up.held.Load() == requests })
		if n := c.upstreams(); c.h2up && (n < requests/60 || n > requests/60+2) || !c.h2up && n != requests {
			t.Errorf("%d connections to the upstream", n)
		}
		close(c.up.let)
		wait.Wait()
	})
}

// TestCombinationsEarlyAnswer shows that who is refused while it uploads gets the answer.
func TestCombinationsEarlyAnswer(t *testing.T) {
	eachCombination(t, "", func(t *testing.T, c *combination) {
		for range 20 {
			res, body, err := exchange(c.client, "POST", c.base+"/early", reader{&pattern{size: 256 << 10}})
			if err != nil || res.StatusCode != 413 || body != smallBody {
				t.Errorf("%q, %v", body, err)
			}
		}
	})
}
