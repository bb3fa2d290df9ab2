package observe

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

func TestRegistryKeepsIdsOverReloads(t *testing.T) {
	r := newRegistry(func(Kind, []int) { t.Error("counters were cleared") })
	a, b := r.Route("a"), r.Route("b")
	if a == b || a == None || b == None {
		t.Fatalf("ids %d and %d", a, b)
	}
	r.Keep(Routes, []int{b})
	if r.Route("b") != b || r.Route("a") != a {
		t.Error("a name that came back within the grace has another id")
	}
	if x, y := r.Endpoint("p", "1"), r.Endpoint("q", "1"); x == y {
		t.Error("endpoints of two pools share an id")
	}
	if r.Listener("a") == None || r.Pool("none") != None {
		t.Error("kinds are mixed up")
	}
}

func TestRegistryGivesIdsAnew(t *testing.T) {
	var cleared []int
	r := newRegistry(func(k Kind, ids []int) { cleared = append(cleared, ids...) })
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	a, b := r.Route("a"), r.Route("b")
	r.Keep(Routes, []int{b})
	if _, ok := r.lookupRoute("a"); ok {
		t.Error("a route that has gone is still found")
	}
	now = now.Add(grace - 1)
	r.Keep(Routes, []int{b})
	if len(cleared) != 0 {
		t.Error("cleared within the grace")
	}
	now = now.Add(1)
	r.Keep(Routes, []int{b})
	if len(cleared) != 1 || cleared[0] != a {
		t.Fatalf("cleared %v, want %d", cleared, a)
	}
	if c := r.Route("c"); c == a {
		t.Error("an id was given anew while it was being cleared")
	}
	r.Keep(Routes, []int{b, r.Route("c")})
	if d := r.Route("d"); d != a {
		t.Errorf("got id %d, want the free %d", d, a)
	}
}

func TestRegistryStaysSmall(t *testing.T) {
	r := newRegistry(func(Kind, []int) {})
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	for i := range 100 {
		var ids []int
		for j := range 50 {
			ids = append(ids, r.Route(fmt.Sprint(i, "-", j)))
		}
		r.Keep(Routes, ids)
		now = now.Add(grace)
	}
	if n := len(r.names[Routes].entries); n > 250 {
		t.Errorf("%d ids for 50 names at a time", n)
	}
}

// What another process says must not be taken for the end of one name and the start of the next.
func TestRegistryRefusesNul(t *testing.T) {
	r := newRegistry(func(Kind, []int) {})
	id := r.Endpoint("p", "1")
	if pool, address := r.live(Endpoints)[id].endpoint(); pool != "p" || address != "1" {
		t.Errorf("endpoint %q of pool %q", address, pool)
	}
	for _, parts := range [][]string{{"p\x001", ""}, {"p", "1\x00"}} {
		if got := r.inherited(Endpoints, parts...); got != None {
			t.Errorf("%q has the id %d", parts, got)
		}
	}
	if got := r.inherited(Endpoints, "p", "1"); got != id {
		t.Errorf("the same endpoint has the ids %d and %d", id, got)
	}
}

func TestRegistryConcurrently(t *testing.T) {
	r := newRegistry(func(Kind, []int) {})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 200 {
				id := r.Endpoint("p", fmt.Sprint(i))
				if r.Endpoint("p", fmt.Sprint(i)) != id {
					t.Error("two ids for one name")
				}
				if g == 0 {
					r.live(Endpoints)
				}
			}
		}()
	}
	wg.Wait()
}

func TestRetiredNamesLeaveTheExposition(t *testing.T) {
	s := newSite(t, 2)
	now := time.Now()
	s.registry.now = func() time.Time { return now }
	count := func() {
		s.on(t, 1, func(x *core.Exchange) {
			x.Err = core.ErrUpstreamReset
			s.Observe(x)
		})
	}
	count()
	if text := s.metrics(t); !strings.Contains(text, `route="shop"`) || !strings.Contains(text, `endpoint="10.0.0.1:80"`) {
		t.Fatal("not shown")
	}
	for _, k := range []Kind{Routes, Endpoints} {
		s.Registry().Keep(k, nil)
	}
	if text := s.metrics(t); strings.Contains(text, `route="shop"`) || strings.Contains(text, `endpoint="10.0.0.1:80"`) {
		t.Error("still shown after the name has gone")
	}
	now = now.Add(grace)
	for range 2 {
		s.Registry().Keep(Routes, nil)
		s.Registry().Keep(Endpoints, nil)
	}
	if id := s.Registry().Route("other"); id != s.route.Metric {
		t.Fatalf("id %d was not given anew but %d", s.route.Metric, id)
	}
	if text := s.metrics(t); strings.Contains(text, `route="other"`) {
		t.Error("a new name has the counters of the one before")
	}
	count()
	if got := s.value(t, `sluice_route_requests_total{route="other",code="2xx"}`); got != 1 {
		t.Errorf("counted %v", got)
	}
}
