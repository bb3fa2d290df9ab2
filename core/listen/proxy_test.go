package listen

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

// block makes a header of version 2.
func block(command, family byte, body []byte) string {
	b := append([]byte(proxySignature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(append(b, body...))
}

// addresses makes the block of two addresses and the ports 50000 and 443, with what follows.
func addresses(from, to string, rest ...byte) []byte {
	b := append(netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, 50000)
	b = binary.BigEndian.AppendUint16(b, 443)
	return append(b, rest...)
}

// lying is a header of version 2 whose length says something else than its body.
func lying(family byte, length uint16, body []byte) string {
	b := []byte(block(0x21, family, body))
	binary.BigEndian.PutUint16(b[14:], length)
	return string(b)
}

func TestParseProxy(t *testing.T) {
	// f expects source from header, "-" where the peer is kept, whatever follows; cut anywhere, it is not whole.
	f := func(header, source string) {
		t.Helper()
		var want netip.AddrPort
		if source != "-" {
			want = netip.MustParseAddrPort(source)
		}
		for _, early := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\n", "PROXY "} {
			got, n, err := parseProxy([]byte(header + early))
			if got != want || n != len(header) || err != nil {
				t.Errorf("%q: %s, %d, %v, want %s, %d", header+early, got, n, err, source, len(header))
			}
		}
		for i := range header {
			if got, n, err := parseProxy([]byte(header[:i])); got.IsValid() || n != 0 || err != nil {
				t.Errorf("%q, cut at %d: %s, %d, %v", header, i, got, n, err)
			}
		}
	}
	f("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1:56324")
	f("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535")
	f("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0")
	f("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "[2001:db8::1]:1")
	f("PROXY TCP6 FFFF:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
	f("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1")
	f("PROXY UNKNOWN\r\n", "-")
	f("PROXY UNKNOWN ffff:f...f:ffff whatever 65535 -1\r\n", "-")
	f("PROXY UNKNOWN"+strings.Repeat(" ", maxProxyLine-len("PROXY UNKNOWN\r\n"))+"\r\n", "-")

	f(block(0x21, 0x11, addresses("192.0.2.1", "198.51.100.1")), "192.0.2.1:50000")
	f(block(0x21, 0x11, addresses("192.0.2.1", "198.51.100.1", 4, 0, 2, 'h', '2')), "192.0.2.1:50000")
	f(block(0x21, 0x21, addresses("2001:db8::1", "::1")), "[2001:db8::1]:50000")
	f(block(0x21, 0x21, addresses("::ffff:192.0.2.1", "::1")), "192.0.2.1:50000")
	f(block(0x21, 0x31, make([]byte, 216)), "-")
	f(block(0x21, 0x00, nil), "-")
	f(block(0x21, 0x00, make([]byte, maxProxyBlock)), "-")
	f(block(0x20, 0x00, nil), "-")
	f(block(0x20, 0x11, addresses("192.0.2.1", "198.51.100.1")), "-") // LOCAL: the peer means itself, whatever stands there
	f(block(0x20, 0xff, []byte{1, 2, 3}), "-")
}

func TestParseProxyRefuses(t *testing.T) {
	f := func(header string) {
		t.Helper()
		for _, early := range []string{"", strings.Repeat("x", 200)} {
			if got, n, err := parseProxy([]byte(header + early)); got.IsValid() || n != 0 || err == nil {
				t.Errorf("%q: %s, %d, %v", header+early, got, n, err)
			}
		}
	}
	f("GET / HTTP/1.1\r\n\r\n")
	f("\n")
	f(" PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
	f("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY\r\n")
	f("PROXY \r\n")
	f("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY TCP 192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY UNKNOWNX\r\n")
	f("PROXY TCP4\r\n")
	f("PROXY TCP4 192.0.2.1\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n")
	f("PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n")
	f("PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n")
	f("PROXY UNKNOWN \r \r\n")
	f("PROXY TCP4 192.000.2.1 192.0.2.2 1 2\r\n")
	f("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n")
	f("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n")
	f("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n")
	f("PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n")
	f("PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n")
	f("PROXY TCP4 ::ffff:192.0.2.1 192.0.2.2 1 2\r\n")
	f("PROXY TCP6 192.0.2.1 2001:db8::1 1 2\r\n")
	f("PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n")
	f("PROXY TCP6 [2001:db8::1] 2001:db8::1 1 2\r\n")
	f("PROXY TCP6 2001:db8:::1 2001:db8::1 1 2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 02\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n")
	f("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\x00\r\n")
	f("PROXY UNKNOWN" + strings.Repeat(" ", maxProxyLine-len("PROXY UNKNOWN\r\n")+1) + "\r\n") // one byte too long
	f("PROXY UNKNOWN" + strings.Repeat("x", maxProxyLine))

	four := addresses("192.0.2.1", "198.51.100.1")
	six := addresses("2001:db8::1", "::1")
	f(strings.Replace(block(0x21, 0x11, four), "QUIT", "QUIt", 1))
	f("\r\n\r\n\r\n")
	f(block(0x11, 0x11, four)) // version 1 in the binary form
	f(block(0x31, 0x11, four))
	f(block(0x22, 0x11, four)) // no such command
	f(block(0x2f, 0x11, four))
	f(block(0x21, 0x12, four)) // datagrams
	f(block(0x21, 0x22, six))
	f(block(0x21, 0x32, make([]byte, 216)))
	f(block(0x21, 0x10, four))
	f(block(0x21, 0x13, four))
	f(block(0x21, 0x41, four))
	f(block(0x21, 0x01, four))
	f(block(0x21, 0x11, four[:11])) // the block ends within the addresses
	f(block(0x21, 0x21, six[:35]))
	f(block(0x21, 0x31, make([]byte, 215)))
	f(lying(0x11, 0, four))
	f(lying(0x11, 11, four))
	f(lying(0x21, 12, six))
	f(lying(0x11, maxProxyBlock+1, four))
	f(lying(0x11, 0xffff, four))
}

// Whatever the bytes, the parser stays within them and its bounds, and its verdict does not change with what follows.
func FuzzParseProxy(f *testing.F) {
	for _, seed := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n",
		block(0x21, 0x11, addresses("192.0.2.1", "198.51.100.1", 1, 0, 1, 0)), block(0x21, 0x21, addresses("::1", "::2")),
		block(0x20, 0, nil), lying(0x11, 0xffff, nil), proxySignature, "PROXY ",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		source, n, err := parseProxy(b)
		if n < 0 || n > len(b) || n > proxyRead {
			t.Fatalf("length %d of %d", n, len(b))
		}
		if (err != nil || n == 0) && source.IsValid() || err != nil && n != 0 {
			t.Fatalf("%s, %d, %v", source, n, err)
		}
		if source.Addr().Is4In6() || source.Addr().Zone() != "" {
			t.Fatalf("source %s", source)
		}
		if n == 0 && err == nil && len(b) >= proxyRead {
			t.Fatal("asks for more than it may")
		}
		if n > 0 || err != nil {
			s2, n2, err2 := parseProxy(append(bytes.Clone(b), "more"...))
			if s2 != source || n2 != n || err2 != err {
				t.Fatalf("with more behind it: %s, %d, %v; without: %s, %d, %v", s2, n2, err2, source, n, err)
			}
		}
		if n > 0 {
			for i := range n {
				if _, k, err := parseProxy(b[:i]); k != 0 || err != nil {
					t.Fatalf("cut at %d of %d: %d, %v", i, n, k, err)
				}
			}
		}
	})
}

func BenchmarkParseProxy(b *testing.B) {
	line := []byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, n, err := parseProxy(line); n == 0 || err != nil {
			b.Fatal(err)
		}
	}
}
