package lb

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"testing"
)

// TestZones is a table of endpoints in each zone, by the gateway's own zone, and of the traffic to each zone in percent.
func TestZones(t *testing.T) {
	f := func(own, zones, want string) {
		t.Helper()
		spec := Defaults(RoundRobin)
		spec.Zone = own
		s := NewSet(&spec, zoned(t, zones), 0)
		traffic := map[string]float64{}
		for i := range s.Len() {
			e, share := s.Share(i)
			traffic[e.Zone] += share
		}
		var got []string
		for zone, share := range traffic {
			got = append(got, fmt.Sprintf("%s:%.1f", zone, 100*share))
		}
		sort.Strings(got)
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s of %s: got %s, want %s", own, zones, got, want)
		}
	}
	f("a", "a:4 b:4", "a:100.0")
	f("a", "a:6 b:3 c:3", "a:100.0")
	f("b", "a:6 b:3 c:3", "a:25.0 b:75.0")
	f("c", "a:5 b:4 c:3", "a:25.0 c:75.0")
	f("c", "a:6 b:5 c:1", "a:50.0 b:25.0 c:25.0")
	f("", "a:4 b:4", "a:50.0 b:50.0")
	f("x", "a:6 b:2", "a:75.0 b:25.0") // none in its own
	f("a", "a:2 b:2", "a:50.0 b:50.0") // too few
	f("a", "a:7", "a:100.0")
}

// zoned makes endpoints from "zone:count ...".
func zoned(t *testing.T, zones string) (es []*Endpoint) {
	t.Helper()
	for _, field := range strings.Fields(zones) {
		zone, count, _ := strings.Cut(field, ":")
		n := 0
		if _, err := fmt.Sscan(count, &n); err != nil {
			t.Fatal(err)
		}
		for range n {
			es = append(es, &Endpoint{Zone: zone})
		}
	}
	for i, e := range alike(len(es)) {
		e.Zone = es[i].Zone
		es[i] = e
	}
	return es
}

// With as many gateways in each zone every endpoint gets the same, whatever the zones have.
func TestZonesKeepEndpointsEven(t *testing.T) {
	for _, zones := range []string{"a:3 b:3 c:3", "a:9 b:2 c:1", "a:6 b:5 c:1", "a:1 b:20", "a:4 b:3 c:2 d:11"} {
		es := zoned(t, zones)
		got, gateways := map[*Endpoint]float64{}, strings.Fields(zones)
		for _, field := range gateways {
			spec := Defaults(RoundRobin)
			spec.Zone, _, _ = strings.Cut(field, ":")
			s := NewSet(&spec, es, 0)
			for i := range s.Len() {
				e, share := s.Share(i)
				got[e] += share / float64(len(gateways))
			}
		}
		for _, e := range es {
			if want := 1 / float64(len(es)); math.Abs(got[e]-want) > 1e-9 {
				t.Errorf("%s: one of zone %s gets %.4f, want %.4f", zones, e.Zone, got[e], want)
			}
		}
	}
}

// Where a zone fails the others take over, and in panic zones do not matter.
func TestZonesAndHealth(t *testing.T) {
	spec, es := Defaults(RoundRobin), zoned(t, "a:6 b:6")
	spec.Zone = "b"
	f := func(fail int, used int, abroad float64, panic bool) {
		t.Helper()
		es[6+fail].Load.Raise(FailedCheck)
		s := NewSet(&spec, es, 0)
		share := 0.0
		for _, e := range es[:6] {
			_, of := shareOf(s, e)
			share += of
		}
		if s.Len() != used || math.Abs(share-abroad) > 1e-9 || s.Panic() != panic {
			t.Errorf("%d failed: %d used, %.4f abroad, panic %v; want %d, %.4f, %v", fail+1, s.Len(), share, s.Panic(), used, abroad, panic)
		}
	}
	f(0, 11, 1-5/5.5, false)
	f(1, 10, 1-4/5.0, false)
	f(2, 9, 1-3/4.5, false)
	f(3, 8, 1-2/4.0, false)
	f(4, 7, 1-1/3.5, false)
	f(5, 6, 1, false)
	es[0].Load.Raise(Ejected)
	f(0, 12, 0.5, true)
}
