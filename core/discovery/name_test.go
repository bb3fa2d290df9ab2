package discovery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// wait is in how many seconds n is due.
func wait(n *Name, c *clock) float64 { return n.Due().Sub(c.at).Seconds() }

// A name is asked for again when the least TTL of its records has passed, within bounds.
func TestTTL(t *testing.T) {
	s, c := newNameServer(t), newClock()
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	if !n.Due().IsZero() {
		t.Errorf("due at %s before the first look", n.Due())
	}
	f := func(want float64, addresses string, records ...string) {
		t.Helper()
		s.set(records...)
		c.at = c.at.Add(max(0, n.Due().Sub(c.at)))
		look(t, n, addresses)
		if got := wait(n, c); got != want {
			t.Errorf("%q: due in %v s, want %v", records, got, want)
		}
	}
	f(30, "192.0.2.1", "a.example. 30 IN A 192.0.2.1")
	f(20, "192.0.2.1 2001:db8::1", "a.example. 30 IN A 192.0.2.1", "a.example. 20 IN AAAA 2001:db8::1")
	f(7, "192.0.2.9", "a.example. 7 IN CNAME b.example.", "b.example. 30 IN A 192.0.2.9")
	f(1, "192.0.2.9", "a.example. 0 IN A 192.0.2.9")
	f(300, "192.0.2.9", "a.example. 86400 IN A 192.0.2.9")
	f(1, "192.0.2.9", "a.example. 4294967295 IN A 192.0.2.9") // RFC 2181, 8

	s.questions()
	c.pass(999 * time.Millisecond)
	look(t, n, "192.0.2.9")
	if asked := s.questions(); len(asked) != 0 {
		t.Errorf("before it is due it is asked for: %s", asked)
	}
	c.pass(time.Millisecond)
	look(t, n, "192.0.2.9")
	if asked := s.questions(); len(asked) != 2 {
		t.Errorf("when it is due %q are asked", asked)
	}
}

func TestFixedInterval(t *testing.T) {
	s, c := newNameServer(t, "a.example. 300 IN A 192.0.2.1"), newClock()
	n := NewHost(s.resolver(t), Schedule{Every: 10 * time.Second}, "a.example", c.now)
	look(t, n, "192.0.2.1")
	if got := wait(n, c); got != 10 {
		t.Errorf("due in %v s", got)
	}
}

// Whatever goes wrong, what was known stays, and is asked for sooner than it would have been, at growing intervals.
func TestFailureKeeps(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN A 192.0.2.1"), newClock()
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	look(t, n, "192.0.2.1")
	found := n.Resolved()
	for i, want := range []string{"no such name", "no such records", "SERVFAIL", "REFUSED", "does not resolve for us", "NXRRSET", "no such name", "no such name"} {
		s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
			m := s.reply(q)
			m.Answer = nil
			switch want {
			case "no such name":
				m.Rcode = dns.RcodeNameError
			case "SERVFAIL":
				m.Rcode = dns.RcodeServerFailure
			case "REFUSED":
				m.Rcode = dns.RcodeRefused
			case "NXRRSET":
				m.Rcode = dns.RcodeNXRrset
			case "does not resolve for us":
				m.RecursionAvailable, m.Ns = false, nil
			default:
				soa, _ := dns.NewRR("example. 60 IN SOA ns.example. me.example. 1 1 1 1 60")
				m.Ns = []dns.RR{soa}
			}
			_ = w.WriteMsg(m)
			return true
		})
		c.at = n.Due()
		look(t, n, "192.0.2.1")
		if n.Err() == nil || !strings.Contains(n.Err().Error(), want) || n.Resolved() != found {
			t.Errorf("problem %v, want %q; resolved at %s", n.Err(), want, n.Resolved())
		}
		most := min(30, float64(int(1)<<i))
		if got := wait(n, c); got < most/2 || got > most {
			t.Errorf("after failure %d it is due in %v s, want %v to %v", i+1, got, most/2, most)
		}
	}
	s.behave(nil)
	c.at = n.Due()
	s.set("a.example. 60 IN A 192.0.2.2")
	look(t, n, "192.0.2.2")
	if n.Err() != nil || wait(n, c) != 60 || n.Resolved() != c.at {
		t.Errorf("problem %v, due in %v s", n.Err(), wait(n, c))
	}
	s.set()
	c.at = n.Due()
	look(t, n, "192.0.2.2")
	if got := wait(n, c); got > 1 {
		t.Errorf("after a success the first failure waits for %v s", got)
	}
}

// One family that fails takes nothing from the other, and keeps its own addresses.
func TestOneFamilyFails(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA 2001:db8::1"), newClock()
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	look(t, n, "192.0.2.1 2001:db8::1")
	s.set("a.example. 60 IN A 192.0.2.2")
	s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		if q.Question[0].Qtype != dns.TypeAAAA {
			return false
		}
		m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		_ = w.WriteMsg(m)
		return true
	})
	c.at = n.Due()
	look(t, n, "192.0.2.2 2001:db8::1")
	if n.Err() == nil || wait(n, c) > 1 {
		t.Errorf("problem %v, due in %v s", n.Err(), wait(n, c))
	}
	s.behave(nil)
	c.at = n.Due()
	look(t, n, "192.0.2.2")
}

func TestService(t *testing.T) {
	hosts := []string{"n1.example. 100 IN A 192.0.2.1", "n2.example. 50 IN A 192.0.2.2", "n2.example. 50 IN AAAA 2001:db8::2", "n3.example. 300 IN A 192.0.2.3"}
	srv := func(records ...string) (all []string) {
		for _, r := range records {
			all = append(all, "_http._tcp.example. 200 IN SRV "+r)
		}
		return append(all, hosts...)
	}
	s, c := newNameServer(t, srv("10 60 8080 n1.example.", "10 20 8081 n2.example.", "70 5 80 n3.example.")...), newClock()
	n := NewService(s.resolver(t), standard, "_http._tcp.example", c.now)
	look(t, n, "n1.example=192.0.2.1:8080*60/0 n2.example=192.0.2.2:8081*20/0 n2.example=[2001:db8::2]:8081*20/0 n3.example=192.0.2.3:80*5/1")
	if wait(n, c) != 50 {
		t.Errorf("due in %v s", wait(n, c))
	}

	// Each part has a TTL of its own.
	s.questions()
	c.pass(50 * time.Second)
	hosts[1] = "n2.example. 500 IN A 192.0.2.22"
	s.set(srv("1 1 1 n1.example.")...)
	look(t, n, "n1.example=192.0.2.1:8080*60/0 n2.example=192.0.2.22:8081*20/0 n2.example=[2001:db8::2]:8081*20/0 n3.example=192.0.2.3:80*5/1")
	for _, q := range s.questions() {
		if !strings.HasSuffix(q, " n2.example.") {
			t.Errorf("%s is asked", q)
		}
	}

	// The set of hosts changes: what is not in it any more is forgotten.
	c.pass(150 * time.Second)
	s.set(srv("1 0 1 n1.example.", "1 7 2 n3.example.", "1 7 2 n3.example.")...)
	look(t, n, "n1.example=192.0.2.1:1*1/0 n3.example=192.0.2.3:2*1000/0")

	// Of another set nothing resolves: the one before stays, and so it does when the service is taken away.
	hosts = nil
	for _, records := range [][]string{srv("1 1 1 gone.example."), srv("0 0 0 ."), {"x. 1 IN A 192.0.2.1"}} {
		s.set(records...)
		c.pass(5 * time.Minute)
		look(t, n, "n1.example=192.0.2.1:1*1/0 n3.example=192.0.2.3:2*1000/0")
		if n.Err() == nil {
			t.Error("there is no problem")
		}
	}
}

// Adopted targets count from the start, and are asked for anew.
func TestAdopt(t *testing.T) {
	s, c := newNameServer(t, "_x._tcp.example. 60 IN SRV 1 1 1 n.example.", "n.example. 60 IN A 192.0.2.1", "n.example. 60 IN AAAA 2001:db8::1"), newClock()
	r := s.resolver(t)
	first := NewService(r, standard, "_x._tcp.example", c.now)
	look(t, first, "n.example=192.0.2.1:1*1/0 n.example=[2001:db8::1]:1*1/0")
	narrow := *r
	narrow.settings.Family = V4
	second := NewService(&narrow, standard, "_x._tcp.example", c.now)
	second.Adopt(first)
	if got := listed(second); got != "n.example=192.0.2.1:1*1/0" || second.Due().After(c.at) {
		t.Errorf("got %s, due at %s", got, second.Due())
	}
	s.set("_x._tcp.example. 60 IN SRV 1 1 2 n.example.", "n.example. 60 IN A 192.0.2.2")
	look(t, second, "n.example=192.0.2.2:2*1/0")
	other := NewHost(r, standard, "n.example", c.now)
	other.Adopt(first)
	if got := listed(other); got != "" {
		t.Errorf("another name has adopted %s", got)
	}
}

func TestManyTargets(t *testing.T) {
	var records []string
	for i := range 2 * MaxTargets {
		records = append(records, fmt.Sprintf("a.example. 60 IN A 192.0.%d.%d", 2+i/250, i%250+1))
	}
	s, c := newNameServer(t, records...), newClock()
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	n.Look(t.Context())
	if len(n.Targets()) != MaxTargets {
		t.Errorf("%d targets: %v", len(n.Targets()), n.Err())
	}
	asked := strings.Join(s.questions(), ",")
	if !strings.Contains(asked, "udp A a.example.") || !strings.Contains(asked, "tcp A a.example.") || strings.Contains(asked, "tcp AAAA") {
		t.Errorf("what does not fit into a packet was asked for by %s", asked)
	}
}
