package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// named is an endpoint that answers with its own name, as slowly and with the status that is asked of it.
type named struct {
	name   string
	addr   string
	seen   atomic.Int64
	delay  atomic.Int64
	status atomic.Int64
	held   chan struct{} // requests for /hold wait for it
}

func newNamed(t *testing.T, n int) (all []*named) {
	t.Helper()
	for i := range n {
		u := &named{name: fmt.Sprint("endpoint", i), held: make(chan struct{})}
		u.status.Store(200)
		u.addr = serveHTTP(t, &http.Server{Handler: u, Protocols: bothProtocols()})
		all = append(all, u)
	}
	return all
}

func (u *named) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.seen.Add(1)
	if r.URL.Path == "/hold" {
		select {
		case <-u.held:
		case <-r.Context().Done():
		}
	}
	if d := time.Duration(u.delay.Load()); d > 0 {
		<-time.After(d) // what a slow endpoint does
	}
	w.WriteHeader(int(u.status.Load()))
	_, _ = io.WriteString(w, u.name)
}

// balanced is a configuration whose upstream u has these endpoints. more goes into their maps, by index.
func balanced(balance string, all []*named, more ...string) string {
	var list []string
	for i, u := range all {
		one := fmt.Sprintf("{ address: %q", u.addr)
		if i < len(more) && more[i] != "" {
			one += ", " + more[i]
		}
		list = append(list, one+" }")
	}
	return fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0", real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] } } }
upstreams: { u: { endpoints: [%s], balance: %s } }
routes: [{ match: "/users/{id}/*", to: u }, { match: "/*", to: u }]
`, strings.Join(list, ", "), balance)
}

// askNamed makes a request and gives the name of the endpoint that answered.
func askNamed(c *http.Client, address, path string, fields ...string) (string, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}

// load makes n requests, so many at once, with a field of its own each, and returns how many each endpoint has got of them.
func (g *running) load(all []*named, n, atOnce int, path string, wantErrors bool) []int {
	g.t.Helper()
	before := counts(all)
	var wg sync.WaitGroup
	var next atomic.Int64
	for range atOnce {
		wg.Go(func() {
			c := newHTTPClient(g.t)
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := askNamed(c, g.addr, path, "X-User", fmt.Sprint("user", i), "X-Forwarded-For", fmt.Sprintf("10.0.%d.%d", i/250, i%250)); err != nil && !wantErrors {
					g.t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	after := counts(all)
	for i := range after {
		after[i] -= before[i]
	}
	return after
}

func counts(all []*named) (list []int) {
	for _, u := range all {
		list = append(list, int(u.seen.Load()))
	}
	return list
}

func newHTTPClient(t testing.TB) *http.Client {
	c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func (g *running) reload() {
	g.t.Helper()
	if err := g.admin.Reload(true); err != nil {
		g.t.Fatal(err)
	}
}

// TestBalanceShares shows that every algorithm gives endpoints what their weights say, and none to one of weight 0.
func TestBalanceShares(t *testing.T) {
	all := newNamed(t, 4)
	weights := []string{"weight: 2", "", "", "weight: 0"}
	g := run(t, balanced("round_robin", all, weights...))
	for balance, tolerance := range map[string]int{ // of 800 requests: 400, 200, 200, 0. A random draw's deviation is 14
		"round_robin":                              8,
		"random":                                   80,
		"{ least_request: { choices: 3 } }":        8,
		"{ least_request: { full_scan: true } }":   80,
		"peak_ewma":                                600, // by latency first
		"{ ring_hash: { key: header:X-User } }":    120,
		"{ maglev: { key: header:X-User } }":       80,
		"source_ip":                                80,
		"{ maglev: { key: [cookie:a, query:b] } }": 80, // none has one: at random
	} {
		g.write(balanced(balance, all, weights...))
		g.reload()
		got := g.load(all, 800, 1, "/x", false) // one at a time: what is in flight counts, too
		for i, want := range []int{400, 200, 200, 0} {
			if off := got[i] - want; off > tolerance || -off > tolerance || want == 0 && off != 0 {
				t.Errorf("%s: got %v", balance, got)
				break
			}
		}
	}
}

// TestBalanceBound shows that one key which everybody has spills over to other endpoints, within a bound, and does not without.
func TestBalanceBound(t *testing.T) {
	all := newNamed(t, 4)
	for _, u := range all {
		u.delay.Store(int64(5 * time.Millisecond))
	}
	f := func(load string, want int) {
		t.Helper()
		g := run(t, balanced("{ maglev: { key: path"+load+" } }", all))
		defer g.stop()
		used := 0
		for _, n := range g.load(all, 200, 16, "/x", false) {
			used += min(n, 1)
		}
		if used != want {
			t.Errorf("%q: %d endpoints were used, want %d", load, used, want)
		}
	}
	f("", 1)
	f(", load_factor: 1.1", 4)
}

// TestBalanceSlowAndFailing shows which algorithms leave an endpoint alone that is slow, or fails at once, over connections of
// either kind.
func TestBalanceSlowAndFailing(t *testing.T) {
	all := newNamed(t, 3)
	f := func(balance string, low, high int) {
		t.Helper()
		for _, protocol := range []string{"h1", "h2c"} {
			g := run(t, strings.Replace(balanced(balance, all), "balance:", "protocol: "+protocol+", balance:", 1))
			g.load(all, 30, 3, "/x", all[0].status.Load() != 200) // so that connections are there, and latencies known
			if got := g.load(all, 300, 6, "/x", all[0].status.Load() != 200); got[0] < low || got[0] > high {
				t.Errorf("%s, %s: got %v", balance, protocol, got)
			}
			g.stop()
		}
	}
	all[0].delay.Store(int64(60 * time.Millisecond))
	f("round_robin", 90, 110)
	f("least_request", 0, 70)
	f("{ least_request: { full_scan: true } }", 0, 70)
	f("peak_ewma", 0, 70)
	all[0].delay.Store(0)
	all[0].status.Store(503)
	f("peak_ewma", 0, 70)
	f("round_robin", 90, 110)
}

// TestBalanceForgets shows that an endpoint that was slow is tried again, once that is long enough ago.
func TestBalanceForgets(t *testing.T) {
	all := newNamed(t, 3)
	g := run(t, balanced("{ peak_ewma: { decay: 50ms } }", all))
	all[0].delay.Store(int64(100 * time.Millisecond))
	g.load(all, 60, 6, "/x", false)
	all[0].delay.Store(0)
	eventually(t, "the endpoint is tried again", func() bool { return g.load(all, 60, 3, "/x", false)[0] > 5 })
}

// TestBalanceKeys shows that requests with the same key go to the same endpoint, whatever the loop and the connection, also
// after a restart, and that others go elsewhere.
func TestBalanceKeys(t *testing.T) {
	all := newNamed(t, 5)
	f := func(balance string, request func(user string) (path string, fields []string)) {
		t.Helper()
		home := map[string]string{}
		for range 2 {
			g := run(t, balanced(balance, all))
			used := map[string]bool{}
			for round := range 3 {
				c := newHTTPClient(t) // on a connection of its own
				for user := range 20 {
					path, fields := request(fmt.Sprint(user))
					got, err := askNamed(c, g.addr, path, fields...)
					if err != nil {
						t.Fatal(err)
					}
					if before := home[fmt.Sprint(user)]; before != "" && before != got {
						t.Errorf("%s: round %d: user %d is at %s, was at %s", balance, round, user, got, before)
					}
					home[fmt.Sprint(user)], used[got] = got, true
				}
			}
			if len(used) < 3 {
				t.Errorf("%s: only %d endpoints are used", balance, len(used))
			}
			g.stop()
		}
	}
	with := func(name, prefix string) func(string) (string, []string) {
		return func(user string) (string, []string) { return "/x", []string{name, prefix + user} }
	}
	at := func(format string) func(string) (string, []string) {
		return func(user string) (string, []string) { return fmt.Sprintf(format, user), nil }
	}
	f("source_ip", with("X-Forwarded-For", "10.0.0."))
	f("ring_hash", with("X-Forwarded-For", "2001:db8::"))
	f("{ ring_hash: { key: header:X-User } }", with("X-User", "user"))
	f("{ maglev: { key: cookie:user } }", with("Cookie", "a=b; user="))
	f("{ maglev: { key: query:user } }", at("/x?a=b&user=%s"))
	f("{ maglev: { key: path } }", at("/x/%s"))
	f("{ maglev: { key: path:id } }", at("/users/%s/x"))
}

// TestStickyCookie shows that who has no cookie is given one, once, and stays where it leads to, also after a restart.
func TestStickyCookie(t *testing.T) {
	all := newNamed(t, 5)
	config := balanced("{ maglev: { key: { cookie: { name: sid, ttl: 1h, same_site: strict } } } }", all)
	issued := regexp.MustCompile(`^sid=[0-9a-f]{32}; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict$`)
	home := map[*http.Client]string{}
	var clients []*http.Client
	for range 20 {
		c := newHTTPClient(t)
		c.Jar, _ = cookiejar.New(nil)
		clients = append(clients, c)
	}
	values := map[string]bool{}
	for restart := range 2 {
		g := run(t, config)
		for round := range 3 {
			for _, c := range clients {
				res, err := c.Get("http://" + g.addr + "/x")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				cookie := res.Header.Values("Set-Cookie")
				if first := restart+round == 0; first && (len(cookie) != 1 || !issued.MatchString(cookie[0])) || !first && len(cookie) > 0 {
					t.Fatalf("restart %d, round %d: Set-Cookie %q", restart, round, cookie)
				}
				for _, v := range cookie {
					values[v] = true
				}
				if before := home[c]; before != "" && before != string(body) {
					t.Errorf("a client is at %s, was at %s", body, before)
				}
				home[c] = string(body)
			}
		}
		at, _ := url.Parse("http://" + g.addr)
		for _, c := range clients {
			if len(c.Jar.Cookies(at)) != 1 {
				t.Error("a client has not kept its cookie")
			}
			c.CloseIdleConnections()
		}
		g.stop()
	}
	if len(values) != len(clients) {
		t.Errorf("%d different cookies for %d clients", len(values), len(clients))
	}
}

// TestBalanceAtRunTime shows what an operator can change while requests come: weights, drain, disable, which reloads keep.
func TestBalanceAtRunTime(t *testing.T) {
	all := newNamed(t, 3)
	config := balanced("{ least_request: {}, panic: 0% }", all, "", "", "priority: 1")
	g := run(t, config)
	change := func(what string, weight *int, endpoints ...*named) admin.UpstreamStatus {
		t.Helper()
		set := admin.SetEndpoints{Upstream: "u", Change: what, Weight: weight}
		for _, e := range endpoints {
			set.Endpoints = append(set.Endpoints, e.addr)
		}
		u, err := g.admin.SetEndpoints(set)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	f := func(when string, want ...bool) {
		t.Helper()
		got := g.load(all, 100, 4, "/x", false)
		for i := range want {
			if (got[i] > 0) != want[i] {
				t.Errorf("%s: got %v", when, got)
				return
			}
		}
	}
	f("at first", true, true, false)

	held := make(chan error, 1)
	go func() {
		_, err := askNamed(newHTTPClient(t), g.addr, "/hold")
		held <- err
	}()
	eventually(t, "one is in flight", func() bool { return g.inFlight() == 1 })
	u := change("drain", nil, all[0], all[1])
	f("drained", false, false, true) // the next priority
	if e := u.Endpoints[0]; !slices.Equal(e.Flags, []string{"draining"}) || !slices.Equal(e.Overrides, []string{"draining"}) || e.Share != 0 {
		t.Errorf("shown as %+v", e)
	}
	close(all[0].held)
	close(all[1].held)
	if err := <-held; err != nil {
		t.Errorf("the request that was open: %v", err)
	}
	g.reload()
	f("drained, after a reload", false, false, true)
	change("enable", nil, all[1])
	f("one is back", false, true, false)
	change("enable", nil, all[0])
	change("weight", new(int), all[1])
	f("weight 0", true, false, false)
	if got := change("weight", nil, all[1]).Endpoints[1]; got.Weight != 1 || got.Overrides != nil {
		t.Errorf("shown as %+v", got)
	}
	f("the configured weight", true, true, false)
	change("disable", nil, all...)
	if _, err := askNamed(newHTTPClient(t), g.addr, "/x"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("with all disabled: %v", err)
	}
	g.write(balanced("{ least_request: {}, panic: 0% }", all, "weight: 3", "", "priority: 1"))
	g.reload()
	f("the configuration has changed the first", true, false, false)

	five, many := 5, 1001
	for what, set := range map[string]admin.SetEndpoints{
		"there is no upstream":  {Upstream: "v", Endpoints: []string{all[0].addr}, Change: "drain"},
		"has no endpoint":       {Upstream: "u", Endpoints: []string{all[0].addr, "127.0.0.1:1"}, Change: "drain"},
		"unknown change":        {Upstream: "u", Endpoints: []string{all[0].addr}, Change: "stop"},
		"is of no use":          {Upstream: "u", Endpoints: []string{all[0].addr}, Change: "drain", Weight: &five},
		"is not from 0 to 1000": {Upstream: "u", Endpoints: []string{all[0].addr}, Change: "weight", Weight: &many},
		"cannot change 0":       {Upstream: "u", Change: "drain"},
	} {
		if _, err := g.admin.SetEndpoints(set); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v, want %q", set, err, what)
		}
	}
	f("after refusals", true, false, false)
}

// inFlight is the number of requests at all endpoints, as the API has it.
func (g *running) inFlight() (n int) {
	g.t.Helper()
	all, err := g.admin.Upstreams()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, u := range all {
		for _, e := range u.Endpoints {
			n += e.InFlight
		}
	}
	return n
}

// TestBalanceReload shows that reloads which change the algorithm, weights and priorities under load cost no request, and
// that everything is counted to its end.
func TestBalanceReload(t *testing.T) {
	all := newNamed(t, 4)
	g := run(t, balanced("round_robin", all))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range 6 {
		wg.Go(func() {
			c := newHTTPClient(t)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := askNamed(c, g.addr, "/x", "X-User", fmt.Sprint(i, n)); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := range 3 {
		for _, balance := range []string{"least_request", "{ peak_ewma: {}, slow_start: 10ms }", "{ maglev: { key: header:X-User } }", "random",
			"{ ring_hash: { key: header:X-User, load_factor: 1.5 } }", "source_ip", "round_robin"} {
			before := done.Load()
			g.write(balanced(balance, all, fmt.Sprint("weight: ", i+1), "", "priority: 1", "weight: 0"))
			g.reload()
			eventually(t, "requests go on", func() bool { return done.Load() > before+20 })
		}
	}
	close(stop)
	wg.Wait()
	eventually(t, "no request is counted", func() bool { return g.inFlight() == 0 }) // an answer is there before its exchange has ended
}
