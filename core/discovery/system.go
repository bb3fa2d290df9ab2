package discovery

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxSystemFile = 4 << 20 // what is behind that is not read
	maxServers    = 8
	maxSearch     = 32
)

// System is what the host's files say of names: resolv.conf(5) and hosts(5), read again when they change. It may be used from any
// goroutine.
type System struct {
	resolvFile, hostsFile string
	slots                 chan struct{} // of lookups that are under way

	mu      sync.Mutex
	resolv  *dns.ClientConfig
	resolvs os.FileInfo // resolvFile as it was read; nil: it was not
	hosts   map[string][]netip.Addr
	hostss  os.FileInfo
}

// NewSystem gives the system of this host.
func NewSystem() *System { return newSystem("/etc/resolv.conf", "/etc/hosts") }

func newSystem(resolvFile, hostsFile string) *System {
	return &System{resolvFile: resolvFile, hostsFile: hostsFile, slots: make(chan struct{}, maxAtOnce), resolv: defaultConfig()}
}

// defaultConfig is that of a host without resolv.conf.
func defaultConfig() *dns.ClientConfig {
	c, err := dns.ClientConfigFromReader(strings.NewReader("nameserver 127.0.0.1\nnameserver ::1\n"))
	if err != nil {
		panic("BUG: discovery: " + err.Error())
	}
	return c
}

// servers are those of resolv.conf, how often each is asked at most, and how long it is waited for.
func (s *System) servers() (list []netip.AddrPort, attempts int, each time.Duration) {
	c := s.config()
	for _, text := range c.Servers {
		if a, err := netip.ParseAddr(text); err == nil && len(list) < maxServers {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	}
	if len(list) == 0 {
		list = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return list, min(max(c.Attempts, 1), 5), time.Duration(min(max(c.Timeout, 1), 30)) * time.Second
}

// names are what host may be short for, in the order in which they are tried.
func (s *System) names(host string) []string {
	lower := "." + strings.ToLower(strings.TrimSuffix(host, "."))
	if strings.HasSuffix(lower, ".invalid") || strings.HasSuffix(lower, ".localhost") {
		return nil // RFC 6761: no server is to be asked
	}
	return s.config().NameList(host)
}

// config is resolv.conf as it stands. One that cannot be read is as it was.
func (s *System) config() *dns.ClientConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	read(s.resolvFile, &s.resolvs, func(r io.Reader) {
		if c, err := dns.ClientConfigFromReader(r); err == nil {
			c.Search = c.Search[:min(len(c.Search), maxSearch)]
			s.resolv = c
		}
	})
	return s.resolv
}

// host gives the addresses that /etc/hosts has for a name, nil for none. localhost has some in any case (RFC 6761, 6.3).
func (s *System) host(name string) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	read(s.hostsFile, &s.hostss, func(r io.Reader) { s.hosts = parseHosts(r) })
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if known := s.hosts[name]; known != nil {
		return slices.Clone(known)
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return nil
}

// read has a file read if it is another, or has another time or size, than before.
func read(name string, before *os.FileInfo, parse func(r io.Reader)) {
	at, err := os.Stat(name)
	if err != nil || !at.Mode().IsRegular() {
		return
	}
	if b := *before; b != nil && os.SameFile(at, b) && at.Size() == b.Size() && at.ModTime().Equal(b.ModTime()) {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	parse(io.LimitReader(f, maxSystemFile))
	*before = at
}

// parseHosts reads lines of an address and names, of which # begins a comment.
func parseHosts(r io.Reader) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) < 2 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, name := range words[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if len(hosts[name]) < MaxTargets {
				hosts[name] = append(hosts[name], a.Unmap())
			}
		}
	}
	return hosts
}
