package listen

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func networks(prefixes ...string) *Networks { return NewNetworks(prefixesOf(prefixes...)) }

func prefixesOf(texts ...string) (all []netip.Prefix) {
	for _, p := range texts {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestNetworks(t *testing.T) {
	n := networks("10.0.0.0/8", "10.1.0.0/16", "192.168.1.77/24", "192.168.2.0/24", "2001:db8::/32", "255.255.255.255/32",
		"::ffff:172.16.0.0/108", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "::/128")
	f := func(addr string, want bool) {
		t.Helper()
		if got := n.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	f("9.255.255.255", false)
	f("10.0.0.0", true)
	f("10.255.255.255", true)
	f("11.0.0.0", false)
	f("::ffff:10.1.2.3", true)
	f("192.168.0.255", false)
	f("192.168.1.0", true)
	f("192.168.2.255", true)
	f("192.168.3.0", false)
	f("172.31.255.255", true)
	f("172.32.0.0", false)
	f("255.255.255.255", true)
	f("255.255.255.254", false)
	f("2001:db8::", true)
	f("2001:db8:ffff::1", true)
	f("2001:db9::", false)
	f("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false)
	f("::", true)
	f("::1", false)
	f("0.0.0.0", false)
	f("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true)
	if n.Contains(netip.Addr{}) || networks().Contains(netip.MustParseAddr("10.0.0.1")) {
		t.Error("no address, or no network, is contained")
	}
	if len(n.ranges) != 7 {
		t.Errorf("%d ranges, want the touching ones merged into 7", len(n.ranges))
	}
}

func TestNetworksTrustUnixPeersAsLoopback(t *testing.T) {
	f := func(want bool, prefixes ...string) {
		t.Helper()
		if got := networks(prefixes...).Trusts(netip.Addr{}); got != want {
			t.Errorf("%v: %v", prefixes, got)
		}
	}
	f(true, "127.0.0.0/8")
	f(true, "::1/128")
	f(false, "10.0.0.0/8", "2001:db8::/32")
}

// Against the plain definition, over random prefixes that overlap.
func TestNetworksAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var prefixes []netip.Prefix
		for range r.IntN(20) {
			prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(256))}), 8+r.IntN(25)))
		}
		n := NewNetworks(prefixes)
		for range 50 {
			a := netip.AddrFrom4([4]byte{byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(5)), byte(r.IntN(256))})
			want := false
			for _, p := range prefixes {
				want = want || p.Contains(a)
			}
			if n.Contains(a) != want {
				t.Fatalf("%s in %v: want %v", a, prefixes, want)
			}
		}
	}
}

// TestManyNetworks: a set that has an index says what a plain one does.
func TestManyNetworks(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var prefixes []netip.Prefix
	for range 2 * manyRanges {
		a := r.Uint32() &^ (r.Uint32() & 0xff00ff00)
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), 18+r.IntN(15)))
	}
	prefixes = append(prefixes, netip.MustParsePrefix("4.0.0.0/7"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("2001:db8::/32"))
	n := NewNetworks(prefixes)
	if n.begin == nil {
		t.Fatalf("%d ranges have no index", len(n.from))
	}
	plain := *n
	plain.begin = nil
	inside := 0
	check := func(v uint32) {
		a := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		got := n.Contains(a)
		if got != plain.Contains(a) {
			t.Fatalf("%s: %v", a, got)
		}
		if got {
			inside++
		}
	}
	for i := range n.from {
		for _, v := range [...]uint32{n.from[i], n.to[i], n.from[i] - 1, n.to[i] + 1, r.Uint32()} {
			check(v)
		}
	}
	if inside < 2*len(n.from) || !n.Contains(netip.MustParseAddr("5.255.255.255")) || !n.Contains(netip.MustParseAddr("2001:db8::1")) {
		t.Errorf("%d of %d ranges", inside, len(n.from))
	}
}

// BenchmarkNetworks looks addresses up in a hundred thousand networks, which are all over the place.
func BenchmarkNetworks(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	var prefixes []netip.Prefix
	for i := range uint32(100_000) {
		a := i * 42_949 // spread over all addresses
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), 24+r.IntN(9)))
	}
	n := NewNetworks(prefixes)
	var addrs [4096]netip.Addr
	for i := range addrs {
		a := r.Uint32()
		addrs[i] = netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n.Contains(addrs[i%len(addrs)])
	}
}
