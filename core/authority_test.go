package core

import (
	"net/netip"
	"strings"
	"testing"
)

func TestValidAuthority(t *testing.T) {
	f := func(in string, want bool) {
		t.Helper()
		if got := ValidAuthority([]byte(in)); got != want {
			t.Errorf("ValidAuthority(%q) = %v", in, got)
		}
	}
	for _, in := range []string{
		"a", "example.com", "example.com.", "EXAMPLE.com:80", "a-b_c~d", "127.0.0.1", "127.0.0.1:65535", "a:0", "xn--bcher-kva.example",
		"[::1]", "[::1]:8080", "[2001:db8::192.0.2.1]", "service.1", strings.Repeat("a", 255),
	} {
		f(in, true)
	}
	for _, in := range []string{
		"", ":", ":80", "a:", "a:65536", "a:99999", "a:123456", "a:8o", "a:-1", "a:+1", "a:80:80", "u@a", "u:p@a", "a b", "a/", "a?b", "a#b", "a\\b",
		"a,b", "a;b", "a'b", "*.a", "a%2eb", "a%", "\x80", "a\x00", ".", "..", ".a", "a..b", "[", "[]", "[:]", "[::1", "::1", "[::1]x", "[::1]:",
		"[::1]8080", "[fe80::1%25eth0]", "[v1.x]", "[127.0.0.1]", "[[::1]]", "a]", strings.Repeat("a", 256),
	} {
		f(in, false)
	}
}

// The standard library decides what an IPv6 address is.
func TestValidIPv6(t *testing.T) {
	parts := []string{"", ":", "::", "1", "abcd", "12345", "g", "1:2:3:4:5:6:7", ":1", "::1", "1::", "1.2.3.4", "01.2.3.4", "1.2.3.256", "1.2.3"}
	for _, a := range parts {
		for _, b := range parts {
			for _, c := range parts {
				in := a + b + c
				addr, err := netip.ParseAddr(in)
				want := err == nil && addr.Is6()
				if got := validIPv6([]byte(in)); got != want {
					t.Errorf("validIPv6(%q) = %v", in, got)
				}
			}
		}
	}
}

func TestAuthorityAgrees(t *testing.T) {
	f := func(authority, host, port string, want bool) {
		t.Helper()
		if got := AuthorityAgrees([]byte(authority), []byte(host), port); got != want {
			t.Errorf("AuthorityAgrees(%q, %q, %q) = %v", authority, host, port, got)
		}
	}
	f("a", "A", "80", true)
	f("a:80", "a", "80", true)
	f("a", "a:80", "80", true)
	f("a:8080", "a:8080", "80", true)
	f("[::1]", "[::1]:80", "80", true)
	f("[::1]:80", "[::1]", "80", true)
	f("a:443", "a", "", true)
	f("a", "b", "80", false)
	f("a", "aa", "80", false)
	f("a:81", "a", "80", false)
	f("a", "a:81", "80", false)
	f("a:81", "a:82", "80", false)
	f("a@b", "a b", "80", false)
	f("a-b", "a\rb", "80", false)
}
