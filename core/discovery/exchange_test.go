package discovery

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// What is not the answer to the question is passed over, whoever sends it: with another id, another question, or no sense.
func TestSpoofedAnswers(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN A 192.0.2.1"), newClock()
	forged := func(q *dns.Msg, change func(m *dns.Msg)) []byte {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR("a.example. 60 IN A 198.51.100.66")
		m.Answer = []dns.RR{rr}
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		if q.Question[0].Qtype != dns.TypeA {
			return false
		}
		for _, packet := range [][]byte{
			forged(q, func(m *dns.Msg) { m.Id++ }),
			forged(q, func(m *dns.Msg) { m.Question[0].Name = "b.example." }),
			forged(q, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }),
			forged(q, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }),
			forged(q, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
			forged(q, func(m *dns.Msg) { m.Question = nil }),
			forged(q, func(m *dns.Msg) { m.Response = false }),
			forged(q, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }),
			forged(q, func(m *dns.Msg) { m.Id++; m.Truncated = true }),
			{}, []byte("x"), bytes.Repeat([]byte{0xc0}, 500),
		} {
			_, _ = w.Write(packet)
		}
		return false
	})
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	look(t, n, "192.0.2.1")
	if n.Err() != nil {
		t.Error(n.Err())
	}
}

// Records that are not the name's own have no say, and neither have addresses to which nothing can be sent.
func TestForeignRecords(t *testing.T) {
	s, c := newNameServer(t), newClock()
	s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := s.reply(q)
		m.Rcode, m.Ns = 0, nil
		for _, text := range []string{
			"b.example. 1 IN A 198.51.100.1", "a.example. 1 CH A 198.51.100.2", "a.example. 60 IN A 0.0.0.0", "a.example. 60 IN A 224.0.0.1",
			"A.Example. 60 IN A 192.0.2.1", "a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA ::ffff:192.0.2.7", "a.example. 60 IN AAAA ::",
		} {
			if rr, err := dns.NewRR(text); err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
		return true
	})
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	look(t, n, "192.0.2.1")
	if wait(n, c) != 60 {
		t.Errorf("due in %v s", wait(n, c))
	}
}

func TestTruncated(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN A 192.0.2.1"), newClock()
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	for _, cut := range []bool{false, true} { // with nothing in it; inside of a record
		s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
			if w.LocalAddr().Network() != "udp" || q.Question[0].Qtype != dns.TypeA {
				return false
			}
			m := s.reply(q)
			m.Truncated = true
			b, _ := m.Pack()
			if cut {
				b = b[:len(b)-3]
			} else {
				m.Answer = nil
				b, _ = m.Pack()
			}
			_, _ = w.Write(b)
			return true
		})
		s.questions()
		c.at = c.at.Add(time.Hour)
		look(t, n, "192.0.2.1")
		if asked := strings.Join(s.questions(), ","); !strings.Contains(asked, "tcp A a.example.") || n.Err() != nil {
			t.Errorf("asked %s: %v", asked, n.Err())
		}
	}
}

// A server that does not know EDNS0 is asked without.
func TestWithoutEDNS0(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN A 192.0.2.1"), newClock()
	s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		if q.IsEdns0() == nil {
			return false
		}
		if size := q.IsEdns0().UDPSize(); size != udpBytes {
			t.Errorf("%d bytes are offered", size)
		}
		m := new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
		m.Question = nil
		_ = w.WriteMsg(m)
		return true
	})
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	look(t, n, "192.0.2.1")
}

// One server that is away, broken or silent leaves the others their time.
func TestOtherServers(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN A 192.0.2.1"), newClock()
	broken := newNameServer(t)
	broken.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		return true
	})
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	away, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = away.Close()
	at := func(p net.PacketConn) netip.AddrPort { return netip.MustParseAddrPort(p.LocalAddr().String()) }
	r := New(Settings{Servers: []netip.AddrPort{at(away), broken.at, at(silent), s.at}, Timeout: 2 * time.Second}, systemOf(t, "", ""))
	look(t, NewHost(r, standard, "a.example", c.now), "192.0.2.1")

	r = New(Settings{Servers: []netip.AddrPort{at(silent)}, Timeout: 50 * time.Millisecond}, systemOf(t, "", ""))
	n := NewHost(r, standard, "a.example", c.now)
	look(t, n, "")
	if n.Err() == nil || !strings.Contains(n.Err().Error(), "timeout") {
		t.Errorf("problem %v", n.Err())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n = NewHost(New(Settings{Servers: []netip.AddrPort{at(silent)}, Timeout: time.Hour}, systemOf(t, "", "")), standard, "a.example", c.now)
	n.Look(ctx) // returns
}

// A server that gives a CNAME and nothing behind it is asked for that.
func TestChains(t *testing.T) {
	s, c := newNameServer(t, "a.example. 60 IN CNAME b.example.", "b.example. 9 IN CNAME c.example.", "c.example. 60 IN A 192.0.2.1",
		"l.example. 60 IN CNAME l.example.", "m.example. 60 IN CNAME n.example.", "n.example. 60 IN CNAME m.example."), newClock()
	s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		m := s.reply(q)
		m.Answer, m.Ns, m.Rcode = m.Answer[:min(1, len(m.Answer))], nil, 0
		_ = w.WriteMsg(m)
		return true
	})
	n := NewHost(s.resolver(t), standard, "a.example", c.now)
	look(t, n, "192.0.2.1")
	if wait(n, c) != 9 {
		t.Errorf("due in %v s", wait(n, c))
	}
	for _, name := range []string{"l.example", "m.example"} {
		n = NewHost(s.resolver(t), standard, name, c.now)
		look(t, n, "")
		if n.Err() == nil {
			t.Errorf("%s leads to itself, and there is no problem", name)
		}
	}
	if asked := len(s.questions()); asked > 100 {
		t.Errorf("%d questions were asked", asked)
	}
}

func TestSearch(t *testing.T) {
	s := newNameServer(t, "db.one.example. 60 IN A 192.0.2.1", "db.two.example. 60 IN A 192.0.2.2", "x.y. 60 IN A 192.0.2.3",
		"x.y.one.example. 60 IN A 192.0.2.4", "text.one.example. 60 IN TXT x", "text.two.example. 60 IN A 192.0.2.5")
	system := systemOf(t, "search one.example two.example\noptions ndots:2 attempts:1\nnameserver 192.0.2.53\n",
		"192.0.2.100 Files.Example files # db\n2001:db8::100 files.example\nfe80::1 files.example\nnonsense db\n")
	r := New(Settings{Servers: []netip.AddrPort{s.at}, Timeout: testTimeout}, system)
	f := func(name, want string) {
		t.Helper()
		look(t, NewHost(r, standard, name, newClock().now), want)
	}
	f("db", "192.0.2.1")
	f("x.y", "192.0.2.4")
	f("x.y.", "192.0.2.3")
	f("text", "192.0.2.5") // one.example has no address of it
	f("none", "")
	f("db.two.example", "192.0.2.2")
	f("files.example", "192.0.2.100 2001:db8::100 fe80::1")
	f("FILES", "192.0.2.100")
	f("localhost", "127.0.0.1 ::1")
	f("a.localhost", "127.0.0.1 ::1")
	s.questions()
	f("x.invalid", "")
	f(strings.Repeat("x.", 127)+"x", "")
	if asked := s.questions(); len(asked) != 0 {
		t.Errorf("asked for %s", asked)
	}

	// A server that fails for the first name might have had it: the next is not asked for.
	s.behave(func(w dns.ResponseWriter, q *dns.Msg) bool {
		if !strings.HasSuffix(q.Question[0].Name, "one.example.") {
			return false
		}
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		return true
	})
	f("db", "")

	// The files are read again when they change.
	if err := os.WriteFile(system.hostsFile, []byte("192.0.2.101 files.example db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f("files.example", "192.0.2.101")
	f("db", "192.0.2.101")
	list, attempts, each := system.servers()
	if len(list) != 1 || list[0] != netip.MustParseAddrPort("192.0.2.53:53") || attempts != 1 || each != 5*time.Second {
		t.Errorf("got %v, %d, %s", list, attempts, each)
	}
}

// FuzzAnswer: whatever an answer holds, what is made of it keeps the bounds.
func FuzzAnswer(f *testing.F) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeSRV)
	for _, text := range []string{"a.example. 60 IN SRV 1 2 3 b.example.", "a.example. 60 IN SRV 0 65535 65535 .", "a.example. 9 IN CNAME a.example.",
		"a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA ::1", "a.example. 60 IN SRV 9 0 3 \"a\\000b.example.\""} {
		m := new(dns.Msg).SetReply(q)
		if rr, err := dns.NewRR(text); err == nil {
			m.Answer = []dns.RR{rr, rr}
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(dns.Msg)
		if m.Unpack(packet) != nil {
			return
		}
		isAnswer(m, q)
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			records, _, ttl := follow(m, "a.example.", kind)
			if ttl > 1<<31-1 {
				t.Errorf("TTL %d", ttl)
			}
			list := arrange(records)
			if len(list) > MaxTargets {
				t.Errorf("%d services", len(list))
			}
			for i, s := range list {
				if s.weight < 1 || s.weight > maxWeight || s.priority > i || s.port == 0 || !isHost(s.host) {
					t.Errorf("%+v", s)
				}
				if i > 0 && (s.priority < list[i-1].priority || s.priority > list[i-1].priority+1) {
					t.Errorf("priority %d follows %d", s.priority, list[i-1].priority)
				}
			}
			var addrs []netip.Addr
			for i := range records {
				if a := records[i].addr; a.IsValid() {
					addrs = append(addrs, a)
				} else if kind != dns.TypeSRV {
					t.Errorf("a record of type %d without an address", kind)
				}
			}
			for i, a := range tidy(addrs) {
				if a.IsUnspecified() || a.Is4In6() || i >= MaxTargets {
					t.Errorf("address %s", a)
				}
			}
		}
	})
}
