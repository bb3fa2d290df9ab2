package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-gateway/sluice/core/admin"
)

// zone is a name server on the loopback address.
type zone struct {
	at      string
	mu      sync.Mutex
	records []dns.RR
}

func newZone(t *testing.T, records ...string) *zone {
	t.Helper()
	z := &zone{}
	z.set(records...)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.at = conn.LocalAddr().String()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = (&dns.Server{PacketConn: conn, Handler: z}).ActivateAndServe()
	}()
	t.Cleanup(func() { // when the gateway, which is started later, has ended
		_ = conn.Close()
		<-ended
	})
	return z
}

func (z *zone) set(records ...string) {
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		all = append(all, rr)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records = all
}

// ServeDNS implements dns.Handler.
func (z *zone) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(question)
	m.RecursionAvailable, m.Rcode = true, dns.RcodeNameError
	for _, rr := range z.records {
		if rr.Header().Name == question.Question[0].Name {
			m.Rcode = 0
			if rr.Header().Rrtype == question.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	_ = w.WriteMsg(m)
}

func portOf(u *named) string { return u.addr[strings.LastIndexByte(u.addr, ':')+1:] }

// constantly has clients ask until stop is called, which gives how many requests failed, and the first error.
func (g *running) constantly(clients int) (stop func() (asked, failed int64, first any)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var asked, failed atomic.Int64
	var first atomic.Value
	for range clients {
		wg.Go(func() {
			c := newHTTPClient(g.t)
			for ctx.Err() == nil {
				asked.Add(1)
				if _, err := askNamed(c, g.addr, "/x"); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	return func() (int64, int64, any) {
		cancel()
		wg.Wait()
		return asked.Load(), failed.Load(), first.Load()
	}
}

// goesTo waits until requests go to just these endpoints, several times in a row: one that is held up for a moment gets none by chance. It
// gives how long it took until the first of these times.
func (g *running) goesTo(all []*named, want ...bool) time.Duration {
	g.t.Helper()
	began := time.Now()
	var first time.Duration
	for row := 0; ; row++ {
		before := counts(all)
		c := newHTTPClient(g.t)
		for range 4 * len(all) {
			if _, err := askNamed(c, g.addr, "/x"); err != nil {
				g.t.Fatal(err)
			}
		}
		after := counts(all)
		same := true
		for i := range all {
			same = same && (after[i] > before[i]) == want[i]
		}
		switch {
		case !same:
			row = -1
		case row == 0:
			first = time.Since(began)
		case row == 5:
			return first
		}
		if time.Since(began) > patience {
			g.t.Fatalf("from %v to %v, want %v\n%s", before, after, want, g.log)
		}
	}
}

// TestDiscoveryMoves: traffic moves to a name's new address when the TTL has passed, and to what SRV records say, without one request
// that fails; what is under way at the old one ends well.
func TestDiscoveryMoves(t *testing.T) {
	all := newNamed(t, 3)
	at := func(n int) string {
		return fmt.Sprintf("_web._tcp.shop.example. 1 IN SRV 1 1 %s host%d.example.", portOf(all[n]), n)
	}
	hosts := []string{"host0.example. 1 IN A 127.0.0.1", "host1.example. 1 IN A 127.0.0.1", "host2.example. 1 IN A 127.0.0.1"}
	z := newZone(t, append(hosts, at(0))...)
	g := run(t, fmt.Sprintf(`
loops: 2
access_log: { to: off }
resolvers: %q
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { u: { endpoints: "srv:_web._tcp.shop.example", balance: least_request } }
routes: [{ match: "/*", to: u }]
`, z.at))
	g.goesTo(all, true, false, false)
	held := make(chan error, 1)
	go func() {
		_, err := askNamed(newHTTPClient(t), g.addr, "/hold")
		held <- err
	}()
	eventually(t, "one is in flight", func() bool { return g.inFlight() == 1 })
	stop := g.constantly(4)

	z.set(append(hosts, at(1), at(2))...)
	if took := g.goesTo(all, false, true, true); took > patience/4 {
		t.Errorf("it took %s", took)
	}
	z.set() // nothing resolves any more
	eventually(t, "the failure is told", func() bool {
		u, err := g.admin.Upstreams()
		return err == nil && u[0].Sources[0].Problem != ""
	})
	g.goesTo(all, false, true, true)
	g.reload()
	g.goesTo(all, false, true, true)
	z.set(append(hosts, at(2))...)
	g.goesTo(all, false, false, true)

	close(all[0].held)
	if err := <-held; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if asked, failed, first := stop(); failed > 0 || asked < 100 {
		t.Errorf("%d of %d requests failed: %v", failed, asked, first)
	}
	var u []admin.UpstreamStatus
	eventually(t, "the new name is resolved", func() (ok bool) { // each host is asked for again at its own time
		var err error
		u, err = g.admin.Upstreams()
		return err == nil && len(u[0].Sources) == 1 && u[0].Sources[0].Problem == ""
	})
	if s := u[0].Sources[0]; s.Kind != "dns" || s.Name != "srv:_web._tcp.shop.example" || s.Endpoints != 1 || s.Failures == 0 || !s.Next.After(s.Found) {
		t.Errorf("shown as %+v", s)
	}
	text, err := g.admin.Metrics()
	if err != nil || !strings.Contains(string(text), `sluice_discovery_failing{upstream="u",source="srv:_web._tcp.shop.example",kind="dns"} 0`) {
		t.Errorf("metrics: %v\n%s", err, text)
	}
	eventually(t, "nothing is told of endpoints that have gone", func() bool {
		text, err := g.admin.Metrics()
		return err == nil && !strings.Contains(string(text), all[1].addr) && strings.Contains(string(text), all[2].addr)
	})
}

// TestEndpointsFile: a file of endpoints is taken over within two seconds, replaced or written over; one that is wrong, empty or gone leaves
// what there was, and what was changed at run time holds.
func TestEndpointsFile(t *testing.T) {
	all := newNamed(t, 3)
	g := run(t, `
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams: { u: { endpoints: { file: endpoints.json } } }
routes: [{ match: "/*", to: u }]
`)
	file := filepath.Join(g.folder, "endpoints.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".next", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".next", file); err != nil {
			t.Fatal(err)
		}
	}
	source := func() admin.SourceStatus {
		t.Helper()
		u, err := g.admin.Upstreams()
		if err != nil || len(u[0].Sources) != 1 {
			t.Fatalf("%+v, %v", u, err)
		}
		return u[0].Sources[0]
	}
	if _, err := askNamed(newHTTPClient(t), g.addr, "/x"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("without a file: %v", err)
	}
	if s := source(); s.Kind != "file" || s.Name != file || !strings.Contains(s.Problem, "no such file") {
		t.Errorf("shown as %+v", s)
	}
	replace(fmt.Sprintf(`[%q, {"address": %q, "weight": 2}]`, all[0].addr, all[1].addr))
	eventually(t, "the file is read", func() bool { return source().Problem == "" })
	stop := g.constantly(2)
	g.goesTo(all, true, true, false)
	write(fmt.Sprintf("- %s\n- %s\n", all[1].addr, all[2].addr))
	if took := g.goesTo(all, false, true, true); took > patience/4 {
		t.Errorf("it took %s", took)
	}

	// What was changed at run time holds, whatever the file says of the rest.
	change := func(what string, u *named) {
		t.Helper()
		if _, err := g.admin.SetEndpoints(admin.SetEndpoints{Upstream: "u", Endpoints: []string{u.addr}, Change: what}); err != nil {
			t.Fatal(err)
		}
	}
	change("add", all[0])
	change("drain", all[1])
	change("remove", all[2])
	g.goesTo(all, true, false, false)
	replace(fmt.Sprintf("- { address: %q, weight: 7 }\n- %s\n- %s\n", all[1].addr, all[2].addr, all[0].addr)) // what was added is in it, too
	eventually(t, "three endpoints are learned", func() bool { return source().Endpoints == 3 })
	g.goesTo(all, true, false, false)
	g.reload()
	g.goesTo(all, true, false, false)
	change("enable", all[1])
	change("add", all[2])
	g.goesTo(all, true, true, true)

	for _, bad := range []string{"", "[]", "- nonsense\n", "- 127.0.0.1:80\n- 127.0.0.1:80\n", fmt.Sprintf("- %s\n- [", all[0].addr)} {
		before := source()
		write(bad)
		eventually(t, "the problem is told", func() bool { return source().Problem != before.Problem })
		if s := source(); s.Failures != before.Failures+1 || s.Endpoints != 3 || !strings.Contains(s.Problem, file+":") {
			t.Errorf("%q is shown as %+v", bad, s)
		}
		g.reload()
		g.goesTo(all, true, true, true)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is missed", func() bool { return strings.Contains(source().Problem, "no such file") })
	g.goesTo(all, true, true, true)
	replace(fmt.Sprintf("- %s\n", all[2].addr))
	g.goesTo(all, false, false, true)
	if asked, failed, first := stop(); failed > 0 || asked < 100 {
		t.Errorf("%d of %d requests failed: %v", failed, asked, first)
	}
	if n := strings.Count(g.log.String(), "the file of endpoints is of no use"); n > 12 {
		t.Errorf("it is told %d times", n)
	}
}

// TestSubsetRoutes: routes go to endpoints with their labels, wherever these come from, and to others where that is wanted.
func TestSubsetRoutes(t *testing.T) {
	all := newNamed(t, 4)
	z := newZone(t, "v2.example. 60 IN A 127.0.0.1")
	config := fmt.Sprintf(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
upstreams:
  u:
    endpoints:
      - { address: %q, labels: { version: v1 } }
      - { address: "v2.example:%s", labels: { version: v2, side: b } }
      - { file: FOLDER/more.yaml, labels: { version: v3 } }
    resolve: { servers: %q }
routes:
  - { match: "/v1", to: { upstream: u, subset: { version: v1 } } }
  - { match: "/v2", to: { u: { weight: 1, subset: { version: v2, side: b } } } }
  - { match: "/v3", to: { upstream: u, subset: { version: v3 } } }
  - { match: "/any", to: { upstream: u, subset: { version: v3 }, otherwise: any } }
  - { name: split, match: "/split", to: [{ upstream: u, weight: 3, subset: { version: v1 } }, { upstream: u, weight: 1, subset: { version: v2 } }] }
  - { match: "/*", to: u }
`, all[0].addr, portOf(all[1]), z.at)
	g := run(t, config)
	c := newHTTPClient(t)
	f := func(path string, want ...int) {
		t.Helper()
		got := make([]int, len(all))
		for range 8 {
			name, err := askNamed(c, g.addr, path)
			switch {
			case err == nil:
				for i, u := range all {
					if u.name == name {
						got[i]++
					}
				}
			case want != nil:
				t.Fatal(err)
			case !strings.Contains(err.Error(), "503"):
				t.Errorf("%s: %v", path, err)
			}
		}
		if want != nil && !slices.Equal(got, want) {
			t.Errorf("%s went to %v, want %v", path, got, want)
		}
	}
	f("/v1", 8, 0, 0, 0)
	f("/v2", 0, 8, 0, 0)
	f("/v3")
	f("/any", 4, 4, 0, 0)
	f("/split", 6, 2, 0, 0)
	weights := admin.SetWeights{Route: "split", Weights: map[string]int{"u{version=v1}": 1, "u{version=v2}": 7}}
	if _, err := g.admin.SetWeights(weights); err != nil {
		t.Fatal(err)
	}
	f("/split", 1, 7, 0, 0)
	f("/x", 4, 4, 0, 0)
	more := fmt.Sprintf("- %s\n- { address: %q, labels: { version: v1 } }\n", all[2].addr, all[3].addr)
	if err := os.WriteFile(filepath.Join(g.folder, "more.yaml"), []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoint is there", func() bool {
		u, err := g.admin.Upstreams()
		return err == nil && len(u[0].Endpoints) == 4
	})
	f("/v3", 0, 0, 8, 0)
	f("/any", 0, 0, 8, 0)
	f("/v1", 4, 0, 0, 4)
	f("/x", 2, 2, 2, 2)
	u, err := g.admin.Upstreams()
	if err != nil || u[0].Endpoints[1].Labels["side"] != "b" || u[0].Endpoints[2].Labels["version"] != "v3" {
		t.Errorf("shown as %+v, %v", u, err)
	}

	// A reload with other subsets, while the old are used.
	stop := g.constantly(2)
	g.write(strings.ReplaceAll(config, "match: \"/v1\", to: { upstream: u, subset: { version: v1 } }", "match: \"/v1\", to: { upstream: u, subset: { side: b } }"))
	g.reload()
	f("/v1", 0, 8, 0, 0)
	f("/v2", 0, 8, 0, 0)
	if _, failed, first := stop(); failed > 0 {
		t.Errorf("%d requests failed: %v", failed, first)
	}
}
