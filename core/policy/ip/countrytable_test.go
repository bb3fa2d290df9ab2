package ip

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

func table(t testing.TB, networks ...string) *CountryTable {
	t.Helper()
	c := NewCountryTable()
	for i := 0; i < len(networks); i += 2 {
		if err := c.Append(netip.MustParsePrefix(networks[i]), networks[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	return c
}

func TestCountryTable(t *testing.T) {
	names := countryNames()
	c := table(t, "0.0.0.0/8", "AA", "1.0.0.0/24", "DE", "1.0.1.0/24", "DE", "1.0.2.0/24", "AT", "1.0.4.0/32", "FR", "9.0.0.0/8", "eu", "255.255.255.255/32", "ZZ",
		"2001:db8::/32", "NO", "2001:db9::/64", "SE", "2001:db9:0:1::/65", "FI", "fe80::/128", "GB", "ff00::/8", "US")
	f := func(addr, want string) {
		t.Helper()
		got := ""
		a, _ := netip.ParseAddr(addr)
		if n := c.find(a); n > 0 {
			got = names[2*(n-1) : 2*n]
		}
		if got != want {
			t.Errorf("%s is in %q, want %q", addr, got, want)
		}
	}
	f("0.0.0.0", "AA")
	f("0.255.255.255", "AA")
	f("1.0.0.0", "DE")
	f("1.0.1.255", "DE")
	f("1.0.2.0", "AT")
	f("1.0.3.0", "")
	f("1.0.3.255", "")
	f("1.0.4.0", "FR")
	f("1.0.4.1", "")
	f("9.1.2.3", "")
	f("255.255.255.254", "")
	f("255.255.255.255", "ZZ")
	f("::ffff:1.0.2.7", "AT")
	f("2001:db7:ffff::", "")
	f("2001:db8::", "NO")
	f("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "NO")
	f("2001:db9::1", "SE")
	f("2001:db9:0:1::", "FI")
	f("2001:db9:0:1:8000::", "")
	f("fe80::%eth0", "GB")
	f("fe80::1", "")
	f("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "US")
	f("", "")
	empty := table(t)
	if empty.Len() != 0 || empty.find(netip.MustParseAddr("1.2.3.4")) != 0 || empty.find(netip.MustParseAddr("::1")) != 0 {
		t.Error("a table of nothing knows countries")
	}
	if n := table(t, "1.0.0.0/24", "DE", "1.0.1.0/24", "DE").Len(); n != 3 { // before, the two, behind
		t.Errorf("two networks of one country are %d ranges", n)
	}
	if !c.Has("NO") || c.Has("UK") || c.Has("") || c.Has("eu") {
		t.Error("the table has other countries than its networks")
	}
}

// A network that begins before the end of one that is there is refused: the table would answer for another.
func TestCountryTableOrder(t *testing.T) {
	for _, pair := range [][2]string{{"1.0.0.0/8", "1.0.0.0/8"}, {"1.0.0.0/8", "1.2.0.0/16"}, {"2.0.0.0/8", "1.0.0.0/8"}, {"0.0.0.0/0", "0.0.0.0/32"},
		{"255.0.0.0/8", "255.255.255.255/32"}, {"fd00::/8", "fd00::/8"}, {"fd00::/8", "fc00::/8"}, {"::/0", "::/1"}} {
		c := NewCountryTable()
		if err := c.Append(netip.MustParsePrefix(pair[0]), "DE"); err != nil {
			t.Fatal(err)
		}
		if err := c.Append(netip.MustParsePrefix(pair[1]), "AT"); err == nil {
			t.Errorf("%s is taken behind %s", pair[1], pair[0])
		}
	}
}

// manyNetworks are n of each family in order, with gaps, of changing countries.
func manyNetworks(n int) (all []netip.Prefix, codes []string) {
	r := rand.New(rand.NewPCG(1, 2))
	names := countryNames()
	for _, six := range []bool{false, true} {
		at := uint64(0)
		for range n {
			at += uint64(1 + r.IntN(3))
			b := [16]byte{0x20, 0x01, byte(at >> 16), byte(at >> 8), byte(at)}
			p := netip.PrefixFrom(netip.AddrFrom16(b), 40)
			if !six {
				p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(at >> 16), byte(at >> 8), byte(at)}), 24)
			}
			c := r.IntN(5)
			all, codes = append(all, p), append(codes, names[2*c:2*c+2])
		}
	}
	return all, codes
}

// TestCountryTableReference holds the table against a walk through all networks.
func TestCountryTableReference(t *testing.T) {
	all, codes := manyNetworks(500)
	c := NewCountryTable()
	for i, p := range all {
		if err := c.Append(p, codes[i]); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	f := func(a netip.Addr) {
		want := country(0)
		for i, p := range all {
			if p.Contains(a) {
				want = countryOf(codes[i])
			}
		}
		if got := c.find(a); got != want {
			t.Fatalf("%v is in %d, want %d", a, got, want)
		}
	}
	for _, p := range all {
		f(p.Addr())
		f(p.Addr().Prev())
		f(lastAddr(p))
		f(lastAddr(p).Next())
	}
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestPolicyAllocates: to let pass by country and by network allocates nothing.
func TestPolicyAllocates(t *testing.T) {
	all, codes := manyNetworks(5000)
	c := NewCountryTable()
	for i, p := range all {
		if err := c.Append(p, codes[i]); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	countries := &Countries{}
	countries.Switch(c)
	p := New(Spec{Countries: countries, AllowCountries: []string{"AA", "AB", "AC", "AD", "AE"}})
	x := &core.Exchange{}
	next := 0
	if n := testing.AllocsPerRun(1000, func() {
		next = (next + 7) % len(all)
		x.Client.Addr = all[next].Addr()
		if p.OnRequest(x) != core.Continue || x.Client.Country != codes[next] {
			t.Fatalf("%v is in %q, want %q", x.Client.Addr, x.Client.Country, codes[next])
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCountryTable(b *testing.B) {
	all, codes := manyNetworks(400_000)
	c := NewCountryTable()
	for i, p := range all {
		if err := c.Append(p, codes[i]); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	r := rand.New(rand.NewPCG(3, 4))
	for _, family := range []struct {
		name string
		of   []netip.Prefix
	}{{"IPv4", all[:len(all)/2]}, {"IPv6", all[len(all)/2:]}} {
		asked := make([]netip.Addr, 1024)
		for i := range asked {
			asked[i] = family.of[r.IntN(len(family.of))].Addr()
		}
		b.Run(family.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if c.find(asked[i%len(asked)]) == 0 {
					b.Fatal("not known")
				}
			}
		})
	}
}
