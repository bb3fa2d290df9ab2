package discovery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-gateway/sluice/core/leak"
)

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// nameServer is a name server on the loopback address, over UDP and TCP. answer is called for each question.
type nameServer struct {
	at     netip.AddrPort
	mu     sync.Mutex
	zone   map[string]string // records by name and type, as "A name."; "" or absent: there is no such name
	answer func(w dns.ResponseWriter, q *dns.Msg) bool
	asked  []string // "udp A name."
}

func newNameServer(t *testing.T, records ...string) *nameServer {
	t.Helper()
	n := &nameServer{}
	n.set(records...)
	var packets net.PacketConn
	var streams net.Listener
	for range 20 { // until both ports are free
		var err error
		if streams, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if packets, err = net.ListenPacket("udp", streams.Addr().String()); err == nil {
			break
		}
		_ = streams.Close()
	}
	n.at = streams.Addr().(*net.TCPAddr).AddrPort()
	ended := make(chan error, 2)
	servers := []*dns.Server{{PacketConn: packets, Handler: n}, {Listener: streams, Handler: n}}
	for _, s := range servers {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { ended <- s.ActivateAndServe() }()
		<-up
	}
	t.Cleanup(func() {
		for _, s := range servers {
			_ = s.Shutdown()
			<-ended
		}
	})
	return n
}

// set makes these the only records. A name has no records of other types than its own.
func (n *nameServer) set(records ...string) {
	zone := map[string]string{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		h := rr.Header()
		zone[h.Name] += " "
		zone[dns.TypeToString[h.Rrtype]+" "+h.Name] += text + "\n"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone = zone
}

func (n *nameServer) behave(f func(w dns.ResponseWriter, q *dns.Msg) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = f
}

// questions gives what was asked since the last call.
func (n *nameServer) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// reply is what the zone has.
func (n *nameServer) reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	name, kind := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	for range 10 {
		if n.zone[name] == "" {
			m.Rcode = dns.RcodeNameError
		}
		for _, key := range []string{"CNAME " + name, dns.TypeToString[kind] + " " + name} {
			for line := range strings.Lines(n.zone[key]) {
				rr, _ := dns.NewRR(line)
				m.Answer = append(m.Answer, rr)
			}
		}
		if len(m.Answer) == 0 {
			break
		}
		to, ok := m.Answer[len(m.Answer)-1].(*dns.CNAME)
		if !ok {
			break
		}
		name = to.Target
	}
	if len(m.Answer) == 0 || m.Rcode != 0 {
		soa, _ := dns.NewRR("example. 60 IN SOA ns.example. me.example. 1 1 1 1 60")
		m.Ns = append(m.Ns, soa)
	}
	return m
}

// ServeDNS implements dns.Handler.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, w.LocalAddr().Network()+" "+dns.TypeToString[q.Question[0].Qtype]+" "+q.Question[0].Name)
	if n.answer != nil && n.answer(w, q) {
		return
	}
	m := n.reply(q)
	if size := 512; w.LocalAddr().Network() == "udp" {
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

// systemOf is a host with these files.
func systemOf(t *testing.T, resolv, hosts string) *System {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"resolv.conf": resolv, "hosts": hosts} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return newSystem(filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts"))
}

const testTimeout = 10 * time.Second

// resolver asks n for the names of an ordinary host.
func (n *nameServer) resolver(t *testing.T) *Resolver {
	return New(Settings{Servers: []netip.AddrPort{n.at}, Timeout: testTimeout}, systemOf(t, "options ndots:1\n", "127.0.0.1 localhost\n"))
}

// clock is a clock that stands.
type clock struct{ at time.Time }

func newClock() *clock { return &clock{time.Unix(1_000_000, 0)} }

func (c *clock) now() time.Time { return c.at }

func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

var standard = Schedule{Min: time.Second, Max: 5 * time.Minute}

// listed is what a name stands for, in words.
func listed(n *Name) string {
	var words []string
	for _, t := range n.Targets() {
		word := t.Addr.String()
		if t.Port > 0 {
			word = fmt.Sprintf("%s=%s*%d/%d", t.Host, netip.AddrPortFrom(t.Addr, t.Port), t.Weight, t.Priority)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func look(t *testing.T, n *Name, want string) {
	t.Helper()
	n.Look(context.Background())
	if got := listed(n); got != want {
		t.Errorf("%s stands for %q, want %q (%v)", n, got, want, n.Err())
	}
}
