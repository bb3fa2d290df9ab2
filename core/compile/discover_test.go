package compile

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-gateway/sluice/core/discovery"
	"github.com/sluice-gateway/sluice/core/probe"
	"github.com/sluice-gateway/sluice/lb"
)

// nameServer answers over UDP on the loopback address.
type nameServer struct {
	at    string
	mu    sync.Mutex
	zone  map[string][]dns.RR // by name and type
	names map[string]bool
	asked int
	away  bool // nothing is answered
}

// newNameServer gives one that has these records.
func newNameServer(t *testing.T, records ...string) *nameServer {
	t.Helper()
	n := &nameServer{}
	n.set(records...)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.at = conn.LocalAddr().String()
	server := &dns.Server{PacketConn: conn, Handler: n}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() { // after that of what resolves, which is started later
		_ = conn.Close()
		<-ended
	})
	return n
}

// set makes these the only records, such as "a.example. 60 IN A 192.0.2.1".
func (n *nameServer) set(records ...string) {
	zone, names := map[string][]dns.RR{}, map[string]bool{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		h := rr.Header()
		names[h.Name] = true
		key := dns.TypeToString[h.Rrtype] + " " + h.Name
		zone[key] = append(zone[key], rr)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone, n.names = zone, names
}

func (n *nameServer) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// silence makes it answer nothing, or answer again.
func (n *nameServer) silence(away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = away
}

// ServeDNS implements dns.Handler.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if n.away {
		return
	}
	answer := new(dns.Msg).SetReply(question)
	answer.RecursionAvailable = true
	q := question.Question[0]
	answer.Answer = n.zone[dns.TypeToString[q.Qtype]+" "+q.Name]
	if !n.names[q.Name] {
		answer.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(answer)
}

func addressRecords(name string, ttl int, list ...string) (records []string) {
	for _, a := range list {
		kind := "A"
		if strings.Contains(a, ":") {
			kind = "AAAA"
		}
		records = append(records, fmt.Sprintf("%s %d IN %s %s", name, ttl, kind, a))
	}
	return records
}

// become waits until the endpoints of upstream a are those.
func become(t *testing.T, c *Compiled, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); endpointsOf(c, "a") != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("endpoints are %q, want %q", endpointsOf(c, "a"), want)
		}
	}
}

// said waits until the log has the words so often.
func (b *bench) said(words string, times int) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); strings.Count(b.log.String(), words) < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("nobody says %q %d times:\n%s", words, times, b.log.String())
		}
	}
}

// A name is asked for again and again while the configuration stays, at an interval or when its TTL has passed: endpoints come and go with
// its addresses, those that stay keep their connections, and while the name does not resolve the last ones stay.
func TestNamesResolveToOtherAddresses(t *testing.T) {
	for _, resolve := range []string{"every: 1s", "min: 1s"} {
		n := newNameServer(t, addressRecords("moves.example.", 0, "192.0.2.1", "192.0.2.2", "2001:db8::1")...)
		b := newBench(t)
		c := b.apply(fmt.Sprintf("upstreams: { a: { endpoints: [\"moves.example:80\"], resolve: { %s, servers: [%q] } } }\nroutes: [{ match: \"/*\", to: a }]\n", resolve, n.at))
		become(t, c, "192.0.2.1:80 192.0.2.2:80 [2001:db8::1]:80") // both families
		stays := c.Upstreams[0].Endpoints()[1]
		n.set(addressRecords("moves.example.", 0, "192.0.2.3", "192.0.2.2")...)
		become(t, c, "192.0.2.2:80 192.0.2.3:80")
		if c.Upstreams[0].Endpoints()[0] != stays {
			t.Error("the endpoint that stays is another one")
		}
		n.set() // no such name
		b.said("its last addresses stay", 1)
		asked := n.count()
		become(t, c, "192.0.2.2:80 192.0.2.3:80")
		if s := c.Sources("a"); len(s) != 1 || s[0].Name != "moves.example" || s[0].Problem == "" || s[0].Failures == 0 || s[0].Endpoints != 2 || s[0].Found.IsZero() {
			t.Errorf("sources: %+v", s)
		}
		for deadline := time.Now().Add(patience); n.count() < asked+2; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the name is not asked for again")
			}
		}
		n.set(addressRecords("moves.example.", 60, "192.0.2.9")...)
		become(t, c, "192.0.2.9:80")
		b.said("endpoint resolves again", 1)
		if strings.Count(b.log.String(), "its last addresses stay") != 1 {
			t.Errorf("it is told again and again:\n%s", b.log.String())
		}
		s := c.Sources("a")[0]
		if wait := s.Next.Sub(s.Found); s.Problem != "" || strings.HasPrefix(resolve, "min") != (wait == time.Minute) {
			t.Errorf("%s: %+v", resolve, s)
		}
	}
}

// A reload asks for the name anew, and does not wait for it: what was known stays meanwhile. resolvers is for all upstreams.
func TestLastAddressesStay(t *testing.T) {
	n := newNameServer(t, addressRecords("a.example.", 300, "192.0.2.1")...)
	b := newBench(t)
	named := fmt.Sprintf("resolvers: %q\nupstreams: { a: { endpoints: [\"a.example:80\", \"srv:_s._tcp.example\"], resolve: { timeout: 1m } } }\nroutes: [{ match: \"/*\", to: a }]\n", n.at)
	become(t, b.apply(named), "192.0.2.1:80")
	n.set(append(addressRecords("n.example.", 300, "192.0.2.5", "192.0.2.6"), append(addressRecords("a.example.", 300, "192.0.2.2"),
		"_s._tcp.example. 300 IN SRV 5 7 81 n.example.", "_s._tcp.example. 300 IN SRV 9 2000 82 n.example.")...)...)
	c := b.apply(named)
	become(t, c, "192.0.2.2:80 192.0.2.5:81 192.0.2.6:81 192.0.2.5:82 192.0.2.6:82")
	if d := c.Upstreams[0].Endpoints()[1].Described(); d.Weight != 7 || d.Priority != 0 || d.Name != "n.example:81" {
		t.Errorf("%+v", d)
	}
	if d := c.Upstreams[0].Endpoints()[4].Described(); d.Weight != 1000 || d.Priority != 1 {
		t.Errorf("%+v", d)
	}
	n.silence(true)
	began := time.Now()
	c = b.apply(named)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the reload took %s", took)
	}
	become(t, c, "192.0.2.2:80 192.0.2.5:81 192.0.2.6:81 192.0.2.5:82 192.0.2.6:82")
	n.silence(false)
}

// What another process knew of endpoints waits for the first ones, where their name does not resolve at once.
func TestInheritedWaitsForNames(t *testing.T) {
	n := newNameServer(t)
	b := newBench(t)
	c, err := b.compile(fmt.Sprintf("upstreams: { a: { endpoints: [\"late.example:80\"], outlier: on, health: { tcp: {}, interval: 1h }, resolve: { every: 1s, servers: [%q] } } }\nroutes: [{ match: \"/*\", to: a }]\n", n.at))
	if err != nil {
		t.Fatal(err)
	}
	endpoint := func(address string) OverriddenEndpoint {
		return OverriddenEndpoint{ExportedEndpoint: ExportedEndpoint{Address: address, Weight: 1}, State: "disable"}
	}
	if err := errors.Join(c.RestoreOverrides(map[string]ExportedOverrides{"a": {Endpoints: []OverriddenEndpoint{endpoint("192.0.2.1:80")}}}),
		c.RestoreEjections(Ejections{"a": {"192.0.2.2:80": {Ejected: true, Multiplier: 1}}}),
		c.InheritChecks(map[string][]probe.Record{"a": {{Address: "192.0.2.3:80", Settled: true}}})); err != nil {
		t.Fatal(err)
	}
	b.registry.Apply(c)
	become(t, c, "")
	n.set(addressRecords("late.example.", 60, "192.0.2.1", "192.0.2.2", "192.0.2.3")...)
	become(t, c, "192.0.2.1:80 192.0.2.2:80 192.0.2.3:80")
	for i, want := range []lb.Flag{lb.Disabled, lb.Ejected, lb.FailedCheck} {
		if e := c.Upstreams[0].Endpoints()[i]; e.Load.Flags() != want {
			t.Errorf("%s: flags %v, want %v", e.Address, e.Load.Flags(), want)
		}
	}
}

// What names resolve to is known by the next process, too, until it finds out anew, and while it cannot over its reloads as well.
func TestInheritedNames(t *testing.T) {
	n := newNameServer(t)
	text := fmt.Sprintf("upstreams: { a: { endpoints: [\"late.example:80\", \"srv:_h._tcp.late.example\"], resolve: { every: 1s, servers: [%q] } } }\nroutes: [{ match: \"/*\", to: a }]\n", n.at)
	b := newBench(t)
	first, err := b.compile(text)
	if err != nil {
		t.Fatal(err)
	}
	service := discovery.Target{Host: "one.example", Addr: netip.MustParseAddr("2001:db8::1"), Port: 81, Weight: 3}
	known := map[string][]discovery.Target{"late.example": {{Addr: netip.MustParseAddr("192.0.2.9")}}, "srv:_h._tcp.late.example": {service}}
	if err := first.RestoreOverrides(map[string]ExportedOverrides{"a": {Names: known}}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []discovery.Target{{}, {Addr: service.Addr.WithZone("x")}, {Addr: service.Addr, Weight: 1}, {Addr: service.Addr, Port: 1, Weight: 1},
		{Host: "h", Addr: service.Addr, Port: 1, Weight: 1001}, {Host: strings.Repeat("h", 254), Addr: service.Addr, Port: 1, Weight: 1}} {
		if first.RestoreOverrides(map[string]ExportedOverrides{"a": {Names: map[string][]discovery.Target{"x": {bad}}}}) == nil {
			t.Errorf("%+v is taken over", bad)
		}
	}
	b.registry.Apply(first)
	const inherited = "192.0.2.9:80 [2001:db8::1]:81"
	become(t, first, inherited)
	b.said("cannot resolve endpoint", 2)
	again := b.apply(text)
	if got := endpointsOf(again, "a"); got != inherited {
		t.Errorf("after a reload: %q, want %q", got, inherited)
	}
	if given := again.Overrides()["a"].Names; !reflect.DeepEqual(given, known) {
		t.Errorf("the next process is given %v", given)
	}
	n.set(addressRecords("late.example.", 60, "192.0.2.1")...)
	become(t, again, "192.0.2.1:80 [2001:db8::1]:81")
}
