package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// forwardCounts sums a counter of the policies over the loops.
func (g *gate) forwardCounts() (asked, cached, busy, failed, passed uint64) {
	onEach(g.loops, func(i int) {
		for _, f := range g.state.Load().compiled.Forwards {
			c := f.Policy.Counts(i)
			asked, cached, busy, failed, passed = asked+c.Asked, cached+c.Cached, busy+c.Busy, failed+c.Failed, passed+c.Passed
		}
	})
	return
}

// rawService answers each connection with these bytes, and then closes it, or trickles on for ever.
func rawService(t *testing.T, answer string, then func(c net.Conn)) string {
	t.Helper()
	return "http://" + serveConns(t, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 64<<10)); err != nil {
			return
		}
		if _, err := io.WriteString(c, answer); err == nil && then != nil {
			then(c)
		}
	})
}

// TestForwardHostile: whatever the service sends, a request is let pass by a 2xx alone; what is no answer follows on_error.
func TestForwardHostile(t *testing.T) {
	endless := func(piece string) func(c net.Conn) {
		return func(c net.Conn) {
			for {
				if _, err := c.Write([]byte(piece)); err != nil {
					return
				}
			}
		}
	}
	silent := func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	long := strings.Repeat("x", 70<<10)
	for _, c := range []struct {
		name, answer string
		then         func(c net.Conn)
		want         int // 0: it is no answer
	}{
		{"2xx with an endless body", "HTTP/1.1 200 OK\r\n\r\n", endless(long), 200},
		{"2xx with a body that is cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", nil, 200},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", silent, 200},
		{"299", "HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", nil, 200},
		{"103 and then 200", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", nil, 200},
		{"endless 1xx", "", endless("HTTP/1.1 103 Early Hints\r\n\r\n"), 0},
		{"101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", silent, 0},
		{"refused with an endless body", "HTTP/1.1 403 No\r\n\r\n", endless(long), 403},
		{"refused with a silent body", "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nx", silent, 403},
		{"refused with a body that is cut", "HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nx", nil, 403},
		{"500", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", nil, 500},
		{"304", "HTTP/1.1 304 Not Modified\r\n\r\n", nil, 304},
		{"two lengths", "HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", nil, 0},
		{"endless head", "HTTP/1.1 200 OK\r\n", endless("X: " + long + "\r\n"), 0},
		{"endless line", "HTTP/1.1 200 OK\r\nX: ", endless(long), 0},
		{"endless status line", "HTTP/1.1 200 ", endless(long), 0},
		{"many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-User: a\r\n", 300) + "\r\n", nil, 0},
		{"large fields", "HTTP/1.1 200 OK\r\nX-User: " + long[:40<<10] + "\r\n\r\n", nil, 0},
		{"control bytes", "HTTP/1.1 200 OK\r\nX-User: a\x01b\r\n\r\n", nil, 0},
		{"a name that is none", "HTTP/1.1 200 OK\r\nX User: a\r\n\r\n", nil, 0},
		{"a folded line", "HTTP/1.1 200 OK\r\nX-User: a\r\n X-Admin: b\r\n\r\n", nil, 200},
		{"a bare CR", "HTTP/1.1 200 OK\r\nX-User: a\rX-Admin: 1\r\n\r\n", nil, 0},
		{"status 600", "HTTP/1.1 600 Odd\r\n\r\n", nil, 0},
		{"status 99", "HTTP/1.1 099 Odd\r\n\r\n", nil, 0},
		{"status 20", "HTTP/1.1 20 Odd\r\n\r\n", nil, 0},
		{"status -200", "HTTP/1.1 -200 Odd\r\n\r\n", nil, 0},
		{"HTTP/2", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", silent, 0},
		{"HTTP/0.9", "<html>", nil, 0},
		{"nothing", "", nil, 0},
		{"silence", "", silent, 0},
		{"half a head", "HTTP/1.1 200 OK\r\nX: ", silent, 0},
		{"half a head, cut", "HTTP/1.1 200 OK\r\nX-User: a", nil, 0},
		{"reset", "HTT", reset, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := rawService(t, c.answer, c.then)
			g := forwardGate(t, url, map[string]string{
				"/deny":  "{ forward: { url: \"URL\", timeout: 200ms, copy: X-User } }",
				"/allow": "{ forward: { url: \"URL\", timeout: 200ms, copy: X-User, on_error: allow } }",
			})
			for path, unasked := range map[string]int{"/deny": 503, "/allow": 200} {
				res, body := forwardGet(t, g.addr, path, map[string]string{"X-User": "root"})
				want := c.want
				if want == 0 {
					want = unasked
				}
				if res.StatusCode != want || strings.Contains(body, "root") || c.want == 0 && want == 503 && !strings.Contains(body, "forward_unavailable") {
					t.Errorf("%s: %d %.200q, want %d", path, res.StatusCode, body, want)
				}
				if strings.Contains(body, "\nX-Admin") {
					t.Errorf("%s: a field was smuggled in: %q", path, body)
				}
			}
		})
	}
}

// TestForwardCache: an answer serves who showed the same credentials for the same request, and nobody else.
func TestForwardCache(t *testing.T) {
	s := newAuthService(t)
	config := func(cache string) string {
		return "{ forward: { url: \"URL\", copy: X-User, cache: " + cache + " } }"
	}
	g := forwardGate(t, s.url, map[string]string{
		"/per/*":   config("{ key: header:Authorization }"),
		"/route/*": config("{ key: [header:Authorization, cookie:s], per: route, ttl: 1h }"),
		"/other/*": config("{ key: [header:Authorization, cookie:s], per: route, ttl: 1h }"),
		"/query":   config("{ key: [query:k], per: route }"),
		"/short":   "{ forward: { url: \"URL\", headers: [Authorization], copy: X-User, cache: { key: header:Authorization, ttl: 1s } } }",
	})
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}} // one connection, and so one loop with its cache
	t.Cleanup(client.CloseIdleConnections)
	f := func(name, path string, asked int64, headers ...string) {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+g.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		user := ""
		for _, line := range headers {
			k, v, _ := strings.Cut(line, ": ")
			req.Header[k] = append(req.Header[k], v)
			if u, ok := strings.CutPrefix(v, "User "); ok && k == "Authorization" {
				user = u
			}
		}
		before := s.asked.Load()
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body) // the connection, and with it the loop, stays the same
		_ = res.Body.Close()
		body := string(b)
		if got := s.asked.Load() - before; got != asked {
			t.Errorf("%s: %d questions, want %d", name, got, asked)
		}
		if user != "" && len(headers) < 3 && !strings.Contains(body, "X-User: "+user+"\r\n") || user == "" && res.StatusCode != 401 {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	ann, bob := "Authorization: User ann", "Authorization: User bob"
	f("first", "/per/a", 1, ann)
	f("again", "/per/a", 0, ann)
	f("another user", "/per/a", 1, bob)
	f("the first is still there", "/per/a", 0, ann)
	f("another path", "/per/b", 1, ann)
	f("another query", "/per/a?x", 1, ann)
	f("nobody", "/per/a", 1)
	f("nobody is not kept", "/per/a", 1)
	f("refused", "/per/a", 1, "Authorization: wrong")
	f("refused again", "/per/a", 0, "Authorization: wrong")
	f("a cookie that is sent and not in the key", "/per/a", 1, ann, "Cookie: s=1")
	f("a cookie set", "/per/a", 1, "Authorization: User cookie")
	f("is not kept", "/per/a", 1, "Authorization: User cookie")
	f("no-store", "/per/a", 1, "Authorization: User nostore")
	f("no-store again", "/per/a", 1, "Authorization: User nostore")
	f("route", "/route/a", 1, ann)
	f("all of the route", "/route/b?x", 0, ann)
	f("not of another", "/other/a", 1, ann)
	f("with a cookie", "/route/a", 1, ann, "Cookie: s=1")
	f("with the cookie again", "/route/a", 0, ann, "Cookie: s=1")
	f("with another", "/route/a", 1, ann, "Cookie: s=2")
	f("the boundary of values", "/route/a", 1, "Authorization: User an", "Cookie: s=n1")
	f("twice in one place", "/route/a", 1, ann, "Authorization: User bob", "Cookie: s=1")
	f("a credential in the query that is not all", "/query?k=1", 1, ann)
	f("is not kept", "/query?k=1", 1, ann)
	f("short", "/short", 1, ann, "Cookie: s=1")
	f("a cookie that is not sent", "/short", 0, ann, "Cookie: s=2")
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // between two looks
		before := s.asked.Load()
		if _, _ = forwardGet(t, g.addr, "/open", nil); s.asked.Load() != before {
			t.Fatal("an open route is asked about")
		}
		req, _ := http.NewRequest("GET", "http://"+g.addr+"/short", nil)
		req.Header.Set("Authorization", "User ann")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if s.asked.Load() > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an answer is kept for ever")
		}
	}
}

// TestForwardFlood: while the service hangs, so many requests wait as may, the others are refused or let pass at once, and nobody else
// notices. Those who ask the same wait for one answer; the question of a client who has left is given up.
func TestForwardFlood(t *testing.T) {
	s := newAuthService(t)
	g := forwardGate(t, s.url, map[string]string{
		"/deny":  "{ forward: { url: \"URL\", timeout: 1m, calls: 4, copy: X-User, headers: [Authorization], cache: { key: header:Authorization } } }",
		"/allow": "{ forward: { url: \"URL\", timeout: 1m, calls: 4, on_error: allow } }",
	})
	known := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	t.Cleanup(known.CloseIdleConnections)
	ask := func() int {
		req, _ := http.NewRequest("GET", "http://"+g.addr+"/deny", nil)
		req.Header.Set("Authorization", "User known")
		res, err := known.Do(req)
		if err != nil {
			t.Error(err)
			return 0
		}
		_, _ = io.Copy(io.Discard, res.Body) // the connection, and with it the loop, stays the same
		_ = res.Body.Close()
		return res.StatusCode
	}
	if got := ask(); got != 200 {
		t.Fatal(got)
	}
	release := s.block()
	const many = 40
	statuses := make(chan int, 4*many)
	var all sync.WaitGroup
	flood := func(n int, path, user string) {
		for i := range n {
			all.Go(func() {
				res, _ := forwardGet(t, g.addr, path, map[string]string{"Authorization": strings.ReplaceAll(user, "#", fmt.Sprint(i))})
				statuses <- res.StatusCode
			})
		}
	}
	flood(many, "/deny", "User #")
	counted := map[int]int{}
	wait := func(status, least int) {
		t.Helper()
		for counted[status] < least {
			select {
			case got := <-statuses:
				counted[got]++
			case <-time.After(patience):
				t.Fatalf("%v, want %d of %d", counted, least, status)
			}
		}
	}
	loops := len(g.loops)
	most := loops * share(4, loops)
	wait(503, many-most)
	flood(many, "/allow", "User #")
	wait(200, many-most)
	if res, _ := forwardGet(t, g.addr, "/open", nil); res.StatusCode != 200 {
		t.Errorf("an open route: %d", res.StatusCode)
	}
	if got := ask(); got != 200 {
		t.Errorf("an answer that was kept: %d", got)
	}
	release()
	all.Wait()
	close(statuses)
	for got := range statuses {
		counted[got]++
	}
	_, _, busy, _, passed := g.forwardCounts()
	if total := uint64(counted[503]); total < many-uint64(most) || busy < total || passed != busy-total || counted[200]+counted[503] != 2*many {
		t.Errorf("%v, %d busy, %d passed", counted, busy, passed)
	}
}

// share is a loop's part of a number.
func share(n, loops int) int { return (n + loops - 1) / loops }

// TestForwardJoins: those who ask the same of one loop wait for one answer, each of them may leave, and the question of the last who
// leaves is given up.
func TestForwardJoins(t *testing.T) {
	s := newAuthService(t)
	g := forwardGate(t, s.url, map[string]string{
		"/*": "{ forward: { url: \"URL\", timeout: 1m, cache: { key: header:Authorization } } }",
	})
	release := s.block()
	var conns []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: User ann\r\n\r\n"))
		conns = append(conns, c)
	}
	waiting := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // between two looks
			n := 0
			onEach(g.loops, func(i int) { n += g.workers[i].Active() })
			if n == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d exchanges are under way, want %d", n, want)
			}
		}
	}
	waiting(20)
	if n := s.asked.Load(); n > int64(len(g.loops)) {
		t.Errorf("%d questions on %d loops", n, len(g.loops))
	}
	for _, c := range conns[:19] {
		_ = c.Close()
	}
	waiting(1)
	release()
	b := make([]byte, 100)
	_ = conns[19].SetReadDeadline(time.Now().Add(patience))
	if n, err := conns[19].Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
		t.Fatalf("%q %v", b[:n], err)
	}
	waiting(0) // an exchange ends after its answer
	release = s.block()
	defer release()
	gone, asked := s.gone.Load(), s.asked.Load()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("GET /left HTTP/1.1\r\nHost: a\r\nAuthorization: User ann\r\n\r\n"))
	eventually(t, "the service is asked", func() bool { return s.asked.Load() > asked })
	_ = c.Close()
	waiting(0)
	eventually(t, "the question ends as the client has left", func() bool { return s.gone.Load() > gone })
}
