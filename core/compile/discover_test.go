package compile

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameServer answers for one name, over UDP on the loopback address, and is the process's resolver.
type nameServer struct {
	mu        sync.Mutex
	addresses []netip.Addr // nil: there is no such name
	asked     int
}

const servedName = "moves.example."

func newNameServer(t *testing.T, addresses ...string) *nameServer {
	t.Helper()
	n := &nameServer{}
	n.set(addresses...)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: n}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() { // after that of what resolves, which is started later
		net.DefaultResolver = before
		_ = conn.Close()
		<-ended
	})
	return n
}

func (n *nameServer) set(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = nil
	for _, a := range addresses {
		n.addresses = append(n.addresses, netip.MustParseAddr(a))
	}
}

func (n *nameServer) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// ServeDNS implements dns.Handler.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := new(dns.Msg)
	answer.SetReply(question)
	q := question.Question[0]
	if !strings.EqualFold(q.Name, servedName) || n.addresses == nil {
		answer.Rcode = dns.RcodeNameError
	} else {
		n.asked++
		for _, a := range n.addresses {
			head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
			switch {
			case a.Is4() && q.Qtype == dns.TypeA:
				answer.Answer = append(answer.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
			case a.Is6() && q.Qtype == dns.TypeAAAA:
				answer.Answer = append(answer.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
			}
		}
	}
	_ = w.WriteMsg(answer)
}

// A name is asked for again and again while the configuration stays: endpoints come and go with its addresses, those that stay
// keep their connections, and while the name does not resolve the last ones stay.
func TestNamesResolveToOtherAddresses(t *testing.T) {
	n := newNameServer(t, "192.0.2.1", "192.0.2.2", "2001:db8::1")
	b := newBench(t)
	c := b.apply("upstreams: { a: { endpoints: [\"moves.example:80\"], resolve: 1s } }\nroutes: [{ match: \"/*\", to: a }]\n")
	eventually := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(patience); endpointsOf(c, "a") != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("endpoints are %q, want %q", endpointsOf(c, "a"), want)
			}
		}
	}
	eventually("192.0.2.1:80 192.0.2.2:80 [2001:db8::1]:80") // both families
	stays := c.Upstreams[0].Endpoints()[1]
	n.set("192.0.2.3", "192.0.2.2")
	eventually("192.0.2.2:80 192.0.2.3:80")
	if c.Upstreams[0].Endpoints()[0] != stays {
		t.Error("the endpoint that stays is another one")
	}
	n.set() // no such name
	asked := n.count()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if strings.Contains(b.log.String(), "its last addresses stay") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody says that the name does not resolve")
		}
	}
	eventually("192.0.2.2:80 192.0.2.3:80")
	n.set("192.0.2.9")
	eventually("192.0.2.9:80")
	if n.count() == asked {
		t.Error("the name was not asked for")
	}
}
