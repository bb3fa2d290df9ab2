package listen

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
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
	if len(n.from) != 4 || n.six.highs.count != 3 {
		t.Errorf("%d ranges and %d prefixes, want the touching ones merged into 4", len(n.from), n.six.highs.count)
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

// sixes are lists of networks of IPv6 as they come: of registries, of one provider, of hosts in one network.
func sixes(r *rand.Rand, count int) map[string][]netip.Prefix {
	all := map[string][]netip.Prefix{}
	address := func(high, low uint64) netip.Addr {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], high)
		binary.BigEndian.PutUint64(b[8:], low)
		return netip.AddrFrom16(b)
	}
	for range count {
		bits := 32 + r.IntN(33)
		all["spread"] = append(all["spread"], netip.PrefixFrom(address(0x2000<<48|r.Uint64()>>3, 0), bits).Masked())
		all["one /32"] = append(all["one /32"], netip.PrefixFrom(address(0x20010db8<<32|r.Uint64()>>32, 0), max(bits, 48)).Masked())
		all["one /64"] = append(all["one /64"], netip.PrefixFrom(address(0x20010db8<<32, r.Uint64()), 112+r.IntN(17)).Masked())
		all["few of a /64"] = append(all["few of a /64"], netip.PrefixFrom(address(0x20010db8<<32|r.Uint64()%uint64(count/4+1), r.Uint64()), 64+r.IntN(65)).Masked())
	}
	return all
}

// near are addresses at the edges of prefixes and beside them, and others of the same kind.
func near(r *rand.Rand, prefixes []netip.Prefix) (all []netip.Addr) {
	for _, p := range prefixes {
		first, last := p.Addr(), lastOf(p)
		b := first.As16()
		for i := p.Bits() / 8; i < 16; i++ {
			v := r.Uint32()
			b[i] ^= byte(v) & byte(v>>8)
		}
		for _, a := range []netip.Addr{first, first.Prev(), last, last.Next(), netip.AddrFrom16(b)} {
			if a.IsValid() {
				all = append(all, a)
			}
		}
	}
	return all
}

// TestNetworksAgreeSix: the tree says what a look at each prefix does, with any number of levels, also at the ends of all addresses.
func TestNetworksAgreeSix(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	ends := prefixesOf("::/64", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:0/112", "8000::/1")
	for _, count := range []int{1, 2, 3, 4, 5, 8, 9, 31, 32, 33, 70, 300, 700} {
		for kind, prefixes := range sixes(r, count) {
			for _, more := range [][]netip.Prefix{nil, ends[:1], ends[1:2], ends[:2], ends[2:], ends} {
				list := slices.Concat(prefixes, more)
				n, addrs := NewNetworks(list), near(r, list)
				for range min(len(addrs), 300) {
					a := addrs[r.IntN(len(addrs))]
					if want := slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) }); n.Contains(a) != want {
						t.Fatalf("%s in %d of %s and %s: want %v", a, count, kind, more, want)
					}
				}
			}
		}
	}
}

// TestManyNetworksSix: a hundred thousand networks, whose tree has six levels, against a binary search in the same ranges.
func TestManyNetworksSix(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for kind, prefixes := range sixes(r, 100_000) {
		n := NewNetworks(prefixes)
		slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
		top := prefixes[:0:0] // networks in others left out
		for _, p := range prefixes {
			if len(top) == 0 || !top[len(top)-1].Contains(p.Addr()) {
				top = append(top, p)
			}
		}
		for _, a := range near(r, prefixes) {
			i, _ := slices.BinarySearchFunc(top, a, func(p netip.Prefix, a netip.Addr) int {
				if p.Addr().Compare(a) <= 0 {
					return -1
				}
				return 1
			})
			if want := i > 0 && top[i-1].Contains(a); n.Contains(a) != want {
				t.Fatalf("%s: %s: want %v", kind, a, want)
			}
		}
		trees := []*tree{&n.six.highs}
		for _, large := range n.six.large {
			trees = append(trees, large)
		}
		bytes := len(n.six.bits) + 4*len(n.six.first) + 9*len(n.six.lows)
		for _, tree := range trees {
			bytes += len(slices.Concat(tree.levels...)) * fanout * 8
		}
		if most := 15*n.six.highs.count + 21*len(n.six.lows) + 4096; bytes > most {
			t.Errorf("%s: %d bytes for %d prefixes", kind, bytes, len(top))
		}
	}
}

// BenchmarkNetworksSix looks addresses up in a hundred thousand networks of IPv6, half of them inside.
func BenchmarkNetworksSix(b *testing.B) {
	r := rand.New(rand.NewPCG(13, 14))
	for kind, prefixes := range sixes(r, 100_000) {
		n, addrs := NewNetworks(prefixes), near(r, prefixes)
		r.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		addrs = addrs[:1<<12]
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			const thread = 1 // RUSAGE_THREAD: wall time tells nothing on a busy machine
			var before, after syscall.Rusage
			_ = syscall.Getrusage(thread, &before)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for i := 0; b.Loop(); i++ {
				n.Contains(addrs[i%len(addrs)])
			}
			_ = syscall.Getrusage(thread, &after)
			b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(b.N), "cpu-ns/op")
		})
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
