package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// authService judges requests by Authorization, and keeps what it was sent.
type authService struct {
	url   string
	asked atomic.Int64
	mu    sync.Mutex
	last  string
	hold  chan struct{} // nil: it answers at once
	gone  atomic.Int64  // questions that were given up
}

func newAuthService(t testing.TB) *authService {
	t.Helper()
	s := &authService{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		b, _ := httputil.DumpRequest(r, true)
		s.mu.Lock()
		s.last = string(b)
		hold := s.hold
		s.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-r.Context().Done():
				s.gone.Add(1)
				return
			}
		}
		s.judge(w, r)
	}))
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

func (s *authService) judge(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	switch user, known := strings.CutPrefix(r.Header.Get("Authorization"), "User "); {
	case known:
		h.Set("X-User", user)
		h["X-Roles"] = []string{"a", "b"}
		h.Set("X-Not-Listed", "secret")
		h.Set("X-For-Client", "hello "+user)
		if user == "internal" {
			h.Set("Authorization", "Bearer internal")
		}
		if user == "cookie" {
			h.Set("Set-Cookie", "s=1")
		}
		if user == "nostore" {
			h.Set("Cache-Control", "private, no-store")
		}
		_, _ = io.WriteString(w, "a body that nobody wants")
	case r.Header.Get("Authorization") == "Loop":
		h.Set("Location", "/check?again")
		h.Add("Set-Cookie", "state=1")
		h.Add("Set-Cookie", "nonce=2")
		h.Set("Connection", "X-Internal")
		h.Set("X-Internal", "1")
		w.WriteHeader(302)
	case r.Header.Get("Authorization") == "Long":
		w.WriteHeader(403)
		_, _ = w.Write(make([]byte, 100<<10))
	default:
		h.Set("WWW-Authenticate", `Custom realm="x"`)
		h.Set("Content-Type", "text/html")
		w.WriteHeader(401)
		_, _ = io.WriteString(w, "<p>who are you?")
	}
}

func (s *authService) saw() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// block makes the service wait until the function that it gives is called.
func (s *authService) block() (release func()) {
	hold := make(chan struct{})
	s.mu.Lock()
	s.hold = hold
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.hold = nil
		s.mu.Unlock()
		close(hold)
	}
}

// forwardGate is a gateway with routes of these policies, by path, and a service in the place of URL.
func forwardGate(t *testing.T, url string, routes map[string]string) *gate {
	t.Helper()
	for path, use := range routes {
		routes[path] = strings.ReplaceAll(use, "URL", url)
	}
	return identityGate(t, routes, "  acme: { keys: \""+keyHash(acmeKey)+"\" }\n")
}

// TestForward shows what the service, the upstream and the client learn, over both protocols.
func TestForward(t *testing.T) {
	s := newAuthService(t)
	g := forwardGate(t, s.url, map[string]string{
		"/all":  "{ keyauth: { optional: true } }, { forward: { url: \"URL/check?x\", copy: [X-User, X-Roles, Authorization], copy_to_client: X-For-Client } }",
		"/some": "{ forward: { url: \"URL/check\", headers: [Authorization, X-Tenant], copy: X-User } }",
		"/kept": "{ forward: { url: \"URL/check\", hide: off } }",
		"/more": "{ forward: { url: \"URL/check\", hide: [header:X-Key, cookie:s, query:token], copy: X-Key } }",
		"/away": "{ forward: { url: \"http://127.0.0.1:1\", on_error: allow } }",
	})
	user := func(name string) string { return "Authorization: User " + name }
	judge(t, g.addr, []identityCase{
		{name: "allowed", path: "/all?a=1", headers: []string{user("ann"), "X-User: root", "x_user: root", "X_Roles: root", "Cookie: c=1"}, status: 200,
			sees: []string{"X-User: ann\r\n", "X-Roles: a\r\nX-Roles: b\r\n", "Cookie: c=1\r\n"}, hidden: []string{"root", "not-listed", "authorization", "x-forwarded-uri"}},
		{name: "another credential", path: "/all", headers: []string{user("internal")}, status: 200, sees: []string{"Authorization: Bearer internal\r\n"}, hidden: []string{"user internal"}},
		{name: "refused", path: "/all", headers: []string{"Authorization: x"}, status: 401, asks: `Custom realm="x"`},
		{name: "some fields", path: "/some", headers: []string{user("ann"), "X-Tenant: t", "X-Other: o"}, status: 200, sees: []string{"X-User: ann\r\n", "X-Other: o\r\n"}, hidden: []string{"authorization"}},
		{name: "nothing hidden", path: "/kept", headers: []string{user("ann"), "Cookie: s=1"}, status: 200, sees: []string{"Authorization: User ann\r\n", "Cookie: s=1\r\n"}},
		{name: "more hidden", path: "/more?a=1&token=t1", headers: []string{user("ann"), "x_key: k", "X-Key: k", "Cookie: a=b; s=1; c=d"}, status: 200,
			sees: []string{"GET /more?a=1 HTTP", "Authorization: User ann\r\n", "Cookie: a=b; c=d\r\n"}, hidden: []string{"key: k", "t1", "s=1"}},
		{name: "nobody judged it", path: "/away", headers: []string{user("ann")}, status: 200, hidden: []string{"authorization"}},
	})
	f := func(path string, headers map[string]string, want, never []string) {
		t.Helper()
		res, body := forwardGet(t, g.addr, path, headers)
		saw := s.saw()
		for _, w := range want {
			if !strings.Contains(saw, w) {
				t.Errorf("%s: %d %s: the service has not seen %q:\n%s", path, res.StatusCode, body, w, saw)
			}
		}
		for _, n := range never {
			if strings.Contains(strings.ToLower(saw), strings.ToLower(n)) {
				t.Errorf("%s: the service has seen %q:\n%s", path, n, saw)
			}
		}
	}
	f("/all?a=%41", map[string]string{"Authorization": "User ann", "X-Forwarded-Uri": "/open", "x_forwarded_method": "PUT", "If-None-Match": "*", "Range": "bytes=0-1",
		"X-Consumer-Name": "root", "X-User": "root", "X-API-Key": acmeKey, "X-Forwarded-For": "192.0.2.1", "X-Tenant": "t", "X-Hop": "1", "Connection": "X-Hop"},
		[]string{"GET /check?x HTTP/1.1\r\n", "X-Forwarded-Method: GET\r\n", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: " + g.addr + "\r\n", "X-Forwarded-Uri: /all?a=%41\r\n",
			"X-Forwarded-For: 127.0.0.1\r\n", "X-Consumer-Name: acme\r\n", "Authorization: User ann\r\n", "X-Tenant: t\r\n"},
		[]string{"root", "192.0.2.1", "/open", "PUT", "if-none", "range", acmeKey, "x-hop"})
	f("/some", map[string]string{"Authorization": "User ann", "X-Tenant": "t", "X-Other": "o", "Cookie": "c=1"},
		[]string{"Authorization: User ann\r\n", "X-Tenant: t\r\n", "X-Forwarded-Uri: /some\r\n"}, []string{"other", "cookie", "user-agent"})
	f("/more?token=t1", map[string]string{"Authorization": "User ann", "Cookie": "s=1"}, []string{"Cookie: s=1\r\n", "X-Forwarded-Uri: /more?token=t1\r\n"}, nil)
	res, _ := forwardGet(t, g.addr, "/all", map[string]string{"Authorization": "User ann"})
	if got := res.Header.Get("X-For-Client"); got != "hello ann" {
		t.Errorf("the client has got %q", got)
	}
	res, body := forwardGet(t, g.addr, "/all", nil)
	if res.StatusCode != 401 || body != "<p>who are you?" || res.Header.Get("Content-Type") != "text/html" || len(res.Header["Date"]) != 1 {
		t.Errorf("%v %q", res, body)
	}
	before := s.asked.Load()
	res, _ = forwardGet(t, g.addr, "/all", map[string]string{"Authorization": "Loop"})
	if res.StatusCode != 302 || res.Header.Get("Location") != "/check?again" || len(res.Header["Set-Cookie"]) != 2 || res.Header.Get("X-Internal") != "" || s.asked.Load() != before+1 {
		t.Errorf("%v after %d questions", res, s.asked.Load()-before)
	}
	res, body = forwardGet(t, g.addr, "/all", map[string]string{"Authorization": "Long"})
	if res.StatusCode != 403 || !strings.Contains(body, `"error":"forward_denied"`) {
		t.Errorf("%v %q", res, body)
	}
}

func forwardGet(t *testing.T, addr, path string, headers map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header[name] = []string{value}
	}
	return forwardDo(t, req)
}

func forwardDo(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	return roundTrip(t, &http.Transport{DisableKeepAlives: true}, req)
}

// roundTrip gives the answer and its body.
func roundTrip(t *testing.T, client http.RoundTripper, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := client.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	b, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Error(err)
	}
	return res, string(b)
}

// TestForwardBody: the service and the upstream get the same body, and one that is too long neither.
func TestForwardBody(t *testing.T) {
	s := newAuthService(t)
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, r.ContentLength, len(b), strings.Count(string(b), "x"), err, r.Trailer)
	}))
	t.Cleanup(u.Close)
	g := newGate(t, strings.Replace(h2Config(u.Listener.Addr().String(), "[h1, h2c]"), "to: a",
		`use: [{ forward: { url: "`+s.url+`", method: same, body: 200KiB } }], to: a`, 1))
	f := func(client http.RoundTripper, length int, chunked bool, expect string, want int) {
		t.Helper()
		var body io.Reader = strings.NewReader(strings.Repeat("x", length))
		if chunked {
			body = io.MultiReader(body)
		}
		req, err := http.NewRequest("PUT", "http://"+g.addr+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "User ann")
		if expect != "" {
			req.Header.Set("Expect", expect)
		}
		res, err := client.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		announced := length
		if chunked {
			announced = -1
		}
		if res.StatusCode != want || want == 200 && string(b) != fmt.Sprint(announced, length, length, nil, http.Header(nil)) {
			t.Errorf("%d bytes, chunked %v: %d %s", length, chunked, res.StatusCode, b)
		}
		if saw := s.saw(); want == 200 && (!strings.HasPrefix(saw, "PUT ") || strings.Count(saw, "x") < length) {
			t.Errorf("the service has seen %d bytes", len(saw))
		}
	}
	h1 := &http.Transport{ExpectContinueTimeout: time.Minute}
	t.Cleanup(h1.CloseIdleConnections)
	for _, client := range []http.RoundTripper{h1, newH2Client(t).Transport} {
		f(client, 10, false, "", 200)
		f(client, 200<<10, false, "", 200)
		f(client, 150<<10, true, "", 200)
		f(client, 200<<10+1, false, "", 413)
		f(client, 200<<10+1, true, "", 413)
	}
	f(h1, 100<<10, false, "100-continue", 200)
}
