package listen

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// exchange is a request from peer with these lines: "Name: value".
func exchange(peer string, lines ...string) *core.Exchange {
	x := &core.Exchange{}
	if peer != "" {
		x.Client.Peer = netip.AddrPortFrom(netip.MustParseAddr(peer), 40000)
		x.Client.Addr = x.Client.Peer.Addr()
		x.Client.Text = []byte(peer)
	}
	x.Request.AddName("Host", []byte("example.com"))
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		x.Request.AddName(name, []byte(value))
	}
	return x
}

// realIP gives a policy that trusts 10.0.0.0/8 and 2001:db8::/32.
func realIP(t testing.TB, header string, depth int) *RealIP {
	r, err := NewRealIP(header, prefixesOf("10.0.0.0/8", "2001:db8::/32"), depth)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expect runs r on x and wants the client to be the address; its text agrees.
func expect(t *testing.T, r *RealIP, x *core.Exchange, client string) {
	t.Helper()
	if v := r.OnRequest(x); v != core.Continue {
		t.Errorf("verdict %d", v)
	}
	if x.Client.Addr.String() != client || string(x.Client.Text) != client {
		t.Errorf("client %s, text %q, want %s", x.Client.Addr, x.Client.Text, client)
	}
}

func TestRealIPTrustsOnlyProxies(t *testing.T) {
	for _, header := range []string{"X-Forwarded-For", "Forwarded", "X-Real-IP"} {
		value := "192.0.2.1"
		if header == "Forwarded" {
			value = "for=" + value
		}
		f := func(peer, client string, trusted bool) {
			t.Helper()
			x := exchange(peer, header+": "+value)
			expect(t, realIP(t, header, 0), x, client)
			if x.Client.Trusted != trusted {
				t.Errorf("%s from %s: trusted %v", header, peer, x.Client.Trusted)
			}
			if peer != "" && x.Client.Peer.Addr() != netip.MustParseAddr(peer) {
				t.Errorf("the peer became %s", x.Client.Peer)
			}
		}
		f("10.0.0.1", "192.0.2.1", true)
		f("2001:db8::7", "192.0.2.1", true)
		f("203.0.113.5", "203.0.113.5", false) // spoofed by a client
		f("127.0.0.1", "127.0.0.1", false)
		f("2001:db9::7", "2001:db9::7", false)
	}
	// Headers that were not chosen count for nothing.
	expect(t, realIP(t, "X-Forwarded-For", 0), exchange("10.0.0.1", "X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.2"), "10.0.0.1")

	local, err := NewRealIP("X-Forwarded-For", prefixesOf("127.0.0.0/8"), 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, local, exchange("", "X-Forwarded-For: 192.0.2.1"), "192.0.2.1") // over a unix socket
}

func TestXForwardedFor(t *testing.T) {
	f := func(client string, lines ...string) {
		t.Helper()
		for i := range lines {
			lines[i] = "X-Forwarded-For: " + lines[i]
		}
		expect(t, realIP(t, "X-Forwarded-For", 0), exchange("10.0.0.1", lines...), client)
	}
	f("10.0.0.1")
	f("192.0.2.1", "192.0.2.1")
	f("192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.3")
	f("192.0.2.1", "192.0.2.1,10.0.0.2,\t10.0.0.3  ")
	f("192.0.2.1", "192.0.2.1", "10.0.0.2", "10.0.0.3")
	f("192.0.2.1", "1.1.1.1, 192.0.2.1", "10.0.0.2 , 2001:db8::3")
	f("10.0.0.3", "10.0.0.3, 10.0.0.2") // all trusted: the first of them
	f("2001:db9::1", "2001:DB9:0:0::1")
	f("192.0.2.1", "::ffff:192.0.2.1")
	f("192.0.2.1", "192.0.2.1, ::ffff:10.0.0.2")

	// With ports.
	f("192.0.2.1", "192.0.2.1:1234, 10.0.0.2:80")
	f("2001:db9::1", "[2001:db9::1]:1234")
	f("2001:db9::1", "[2001:db9::1]")

	// Empty elements are none.
	f("192.0.2.1", "192.0.2.1, , 10.0.0.2,,", "", " ", ",")
	f("10.0.0.1", "", ",,,")

	// Spoofed: what the client wrote stands left of what the proxy added, in the same line or another.
	f("192.0.2.1", "1.1.1.1, 192.0.2.1")
	f("192.0.2.1", "1.1.1.1", "192.0.2.1")
	f("192.0.2.1", "10.0.0.9, 10.0.0.8, 192.0.2.1, 10.0.0.2")
	f("192.0.2.1", "10.0.0.9, 192.0.2.1")
	f("192.0.2.1", strings.Repeat("1.1.1.1, ", 3000)+"192.0.2.1")

	// From a malformed value on nothing is believed: the last good one counts.
	f("10.0.0.1", "192.0.2.1, nonsense")
	f("10.0.0.2", "192.0.2.1, unknown, 10.0.0.2")
	f("10.0.0.2", "192.0.2.1, _hidden, 10.0.0.2")
	f("10.0.0.2", "192.0.2.1", "192.0.2.1 192.0.2.2, 10.0.0.2")
	for _, bad := range []string{"192.0.2.1:", "192.0.2.1:http", "192.0.2.1:65536", "192.0.2.1:080", "192.0.2.01", "192.0.2", "192.0.2.1.2", "192.0.2.256",
		"::1::", "[::1", "::1]", "[::1]80", "[::1]:", "[::1]:x", "[192.0.2.1]", "[]", "[", ":", ":80", "fe80::1%eth0", "[fe80::1%eth0]:80", "\"192.0.2.1\"", "for=192.0.2.1",
		"192.0.2.1/32", "0x7f.1", "2130706433", "192.0.2.1;", "-", strings.Repeat("1", 200), "2001:db9::1:::", "1:2:3:4:5:6:7:8:9", "\xff", "192.0.2.\xb9"} {
		f("10.0.0.2", "192.0.2.1, "+bad+", 10.0.0.2")
	}

	// Only the last lines are looked at, and they are all trusted.
	var many []string
	for range maxForwardLines + 5 {
		many = append(many, "10.0.0.4")
	}
	many[0], many[5] = "192.0.2.1", "10.0.0.5"
	f("10.0.0.5", many...)
}

func TestRealIPDepth(t *testing.T) {
	f := func(depth int, client string, lines ...string) {
		t.Helper()
		for i := range lines {
			lines[i] = "X-Forwarded-For: " + lines[i]
		}
		expect(t, realIP(t, "X-Forwarded-For", depth), exchange("10.0.0.1", lines...), client)
	}
	f(1, "192.0.2.3", "192.0.2.1, 192.0.2.2, 192.0.2.3")
	f(2, "192.0.2.2", "192.0.2.1, 192.0.2.2, 192.0.2.3")
	f(3, "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")
	f(4, "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3") // the list ends before
	f(1, "10.0.0.9", "192.0.2.1, 10.0.0.9")                  // trusted or not does not matter
	f(2, "192.0.2.1", "1.1.1.1, 192.0.2.1, 192.0.2.2")       // spoofed
	f(2, "192.0.2.2", "1.1.1.1, nonsense, 192.0.2.2")
	f(2, "10.0.0.1", "1.1.1.1, 192.0.2.2, nonsense")
	f(1, "10.0.0.1")

	expect(t, realIP(t, "Forwarded", 2), exchange("10.0.0.1", "Forwarded: for=1.1.1.1, for=192.0.2.1", "Forwarded: for=192.0.2.2"), "192.0.2.1")
}

func TestForwarded(t *testing.T) {
	f := func(client string, lines ...string) {
		t.Helper()
		for i := range lines {
			lines[i] = "Forwarded: " + lines[i]
		}
		expect(t, realIP(t, "Forwarded", 0), exchange("10.0.0.1", lines...), client)
	}
	f("192.0.2.1", "for=192.0.2.1")
	f("192.0.2.1", "For=192.0.2.1;proto=https;by=203.0.113.43")
	f("192.0.2.1", "proto=https; FOR=192.0.2.1 ; host=\"a,b;c\"")
	f("192.0.2.1", `for="192.0.2.1"`)
	f("192.0.2.1", `for="192.0.2.1:4711"`)
	f("2001:db9::1", `for="[2001:db9::1]"`)
	f("2001:db9::1", `for="[2001:DB9::1]:4711"`)
	f("192.0.2.1", `for=1.1.1.1, for=192.0.2.1;by="[2001:db8::2]", for="[2001:db8::2]:80"`)
	f("192.0.2.1", "for=1.1.1.1", "for=192.0.2.1", "for=10.0.0.2")
	f("192.0.2.1", `for=1.1.1.1, for=192.0.2.1;host="a\"b, for=2.2.2.2, \\"`)
	f("192.0.2.1", "for=192.0.2.1, , ,", "", ",")

	// Spoofed: quotes that are never closed, or that seem to begin or end in what the proxy added.
	f("192.0.2.1", `for=", for=192.0.2.1`)
	f("192.0.2.1", `for="1.1.1.1, for=192.0.2.1`)
	f("192.0.2.1", `for="`, "for=192.0.2.1")
	f("192.0.2.1", `for=1.1.1.1;x="\, for=192.0.2.1`)
	f("192.0.2.1", `x="\", for=192.0.2.1;host="example.com"`)
	f("192.0.2.1", `", for=192.0.2.1;host="a,b", for=10.0.0.2`)
	f("192.0.2.1", `for=10.0.0.9, for=192.0.2.1`)

	// From a malformed element on nothing is believed.
	for _, bad := range []string{"for=unknown", "for=_hidden", `for="_hidden:80"`, `for="unknown"`, "proto=https", "for", "for=", `for=""`, "=192.0.2.1", "for =192.0.2.1", "for= 192.0.2.1",
		"for=192.0.2.1:80", "for=[2001:db9::1]", "for=2001:db9::1", `for="2001:db9::1"`, `for="[192.0.2.1]"`, `for="[::ffff:192.0.2.1"`, `for="::ffff:192.0.2.1"`, `for="192.0.2.1`,
		`for=192.0.2.1"`, `for="192.0.2.1"x`, `for="192.0.2.\1"`, "for=192.0.2.1;for=192.0.2.1", "for=192.0.2.1;", ";for=192.0.2.1", "for=192.0.2.1;;proto=http", "for=192.0.2.1;proto",
		"for=192.0.2.1;proto=", "for=192.0.2.1 proto=http", "192.0.2.1", "for=192.0.2.1;pr(oto=http", `for="192.0.2.1:_port"`, `for=192.0.2.1;x="`} {
		f("10.0.0.2", "for=192.0.2.9, "+bad+", for=10.0.0.2")
		f("10.0.0.1", bad)
	}
}

func TestXRealIP(t *testing.T) {
	f := func(client string, lines ...string) {
		t.Helper()
		for i := range lines {
			lines[i] = "X-Real-IP: " + lines[i]
		}
		expect(t, realIP(t, "x-real-ip", 0), exchange("10.0.0.1", lines...), client)
	}
	f("10.0.0.1")
	f("192.0.2.1", "192.0.2.1")
	f("2001:db9::1", "2001:db9::1")
	f("10.0.0.7", "10.0.0.7")              // a trusted client is one, too
	f("192.0.2.1", "1.1.1.1", "192.0.2.1") // spoofed
	f("10.0.0.1", "192.0.2.1, 192.0.2.2")  // not a list
	f("10.0.0.1", "192.0.2.1", "nonsense")
	f("10.0.0.1", "")
}

func TestNewRealIPErrors(t *testing.T) {
	for header, depth := range map[string]int{"X-Client-IP": 0, "": 0, "Host": 0, "X-Forwarded-For": -1, "Forwarded": MaxDepth + 1} {
		if _, err := NewRealIP(header, nil, depth); err == nil {
			t.Errorf("header %q, depth %d: no error", header, depth)
		}
	}
}

func TestRealIPAllocs(t *testing.T) {
	for _, c := range []struct{ header, value string }{
		{"X-Forwarded-For", "1.1.1.1, 2001:db9::1, 10.0.0.2, 10.0.0.3:80"},
		{"Forwarded", `for=1.1.1.1, for="[2001:db9::1]:80";proto=https, for=10.0.0.2`},
		{"X-Real-IP", "2001:db9::1"},
	} {
		r, x := realIP(t, c.header, 0), exchange("10.0.0.1", c.header+": "+c.value)
		if n := testing.AllocsPerRun(100, func() { r.OnRequest(x) }); n != 0 {
			t.Errorf("%s: %v allocations", c.header, n)
		}
		if got := string(x.Client.Text); got != "2001:db9::1" {
			t.Errorf("%s: client %s", c.header, got)
		}
	}
}

// Whatever a client sends, it moves nothing of what the proxies add behind it.
func FuzzRealIP(f *testing.F) {
	for _, seed := range []string{"", "1.1.1.1", "for=1.1.1.1", `for="`, `"`, `\`, `x="\`, "for=[::1]", ",,,", "10.0.0.5", "for=10.0.0.5", "[::1]:80", "fe80::1%a", `for="[::1]:80";a="b,c"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		for _, c := range []struct{ header, added, client string }{
			{"X-Forwarded-For", "192.0.2.1, 10.0.0.2", "192.0.2.1"},
			{"Forwarded", `for=192.0.2.1;by="[2001:db8::1]:80";host="a\",b", for="10.0.0.2:80"`, "192.0.2.1"},
		} {
			r := realIP(t, c.header, 0)
			expect(t, r, exchange("10.0.0.1", c.header+": "+sent+", "+c.added), c.client)
			expect(t, r, exchange("10.0.0.1", c.header+": "+sent, c.header+": "+c.added), c.client)
			deep := realIP(t, c.header, 2)
			expect(t, deep, exchange("10.0.0.1", c.header+": "+sent+", "+c.added), c.client)
			// Alone it may say what it likes, as an address that reads as it is written.
			x := exchange("10.0.0.1", c.header+": "+sent)
			r.OnRequest(x)
			if a, err := netip.ParseAddr(string(x.Client.Text)); err != nil || a != x.Client.Addr || a.Zone() != "" || a.Is4In6() {
				t.Errorf("%q: client %s, text %q, %v", sent, x.Client.Addr, x.Client.Text, err)
			}
		}
	})
}

func BenchmarkRealIP(b *testing.B) {
	for _, c := range []struct{ header, value string }{
		{"X-Forwarded-For", "192.0.2.1, 10.0.0.2"},
		{"Forwarded", `for=192.0.2.1;proto=https, for=10.0.0.2`},
	} {
		b.Run(c.header, func(b *testing.B) {
			r, x := realIP(b, c.header, 0), exchange("10.0.0.1", c.header+": "+c.value)
			b.ReportAllocs()
			for b.Loop() {
				r.OnRequest(x)
			}
		})
	}
}
