package server

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// countryFile writes a database of networks and their countries.
func countryFile(t *testing.T, networks map[string]string) string {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, code := range networks {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(n, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "country.mmdb")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCountries judges clients by the country of their address, behind trusted proxies. Whose country is not known is in no list unless
// told; the country is there for conditions, fields and the log.
func TestCountries(t *testing.T) {
	path := countryFile(t, map[string]string{"192.0.2.0/24": "DE", "192.0.3.0/24": "AT", "198.51.100.0/24": "KP", "2001:db8::/32": "NO"})
	lines := filepath.Join(t.TempDir(), "access.log")
	text := strings.Replace(h2Config(newMirror(t), "[h1, h2c]"), `bind: "127.0.0.1:0"`,
		`bind: "127.0.0.1:0"`+"\n    real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] }", 1)
	text = strings.Replace(text, "access_log: { to: off }", "access_log: { to: "+lines+" }", 1)
	countries := func(lists string) string { return "{ ip: { countries: { file: " + path + lists + " } } }" }
	g := newGate(t, strings.Replace(text, `[{ match: "/*", to: a }]`, `
  - { match: /allow, use: [`+countries(", allow: [DE, NO]")+`], to: a }
  - { match: /deny, use: [`+countries(", deny: KP")+`], to: a }
  - { match: /strict, use: [`+countries(", deny: KP, unknown: deny")+`], to: a }
  - { match: /open, use: [`+countries(", allow: DE, unknown: allow")+`], to: a }
  - { match: /office, use: [{ ip: { allow: 10.0.0.0/8, deny: 192.0.2.7, countries: { file: `+path+`, allow: DE, deny: KP } } }], to: a }
  - { match: /fields, use: [`+countries("")+`, { headers: { request: { set: { X-Country: "{client_country}" } } } }], to: a }
  - { match: /when, use: [`+countries("")+`, { access: { when: 'country in ["DE", "AT"]' } }], to: a }
`, 1))
	from := func(a string) []string { return []string{"X-Forwarded-For: " + a} }
	judge(t, g.addr, []identityCase{
		{name: "allowed", path: "/allow", headers: from("192.0.2.9"), status: 200},
		{name: "allowed, IPv6", path: "/allow", headers: from("2001:db8::9"), status: 200},
		{name: "not allowed", path: "/allow", headers: from("192.0.3.9"), status: 403, reason: "country_denied"},
		{name: "not known, of allowed", path: "/allow", headers: from("203.0.113.1"), status: 403, reason: "country_denied"},
		{name: "the proxy", path: "/allow", status: 403, reason: "country_denied"},
		{name: "denied", path: "/deny", headers: from("198.51.100.1"), status: 403, reason: "country_denied"},
		{name: "denied, IPv4 within IPv6", path: "/deny", headers: from("::ffff:198.51.100.1"), status: 403, reason: "country_denied"},
		{name: "denied, through 6to4", path: "/deny", headers: from("2002:c633:6401::1"), status: 403, reason: "country_denied"},
		{name: "not denied", path: "/deny", headers: from("192.0.2.1"), status: 200},
		{name: "not known, of denied", path: "/deny", headers: from("203.0.113.1"), status: 200},
		{name: "not known is denied", path: "/strict", headers: from("203.0.113.1"), status: 403, reason: "country_denied"},
		{name: "known", path: "/strict", headers: from("192.0.2.1"), status: 200},
		{name: "not known is allowed", path: "/open", headers: from("203.0.113.1"), status: 200},
		{name: "not allowed, but known", path: "/open", headers: from("192.0.3.1"), status: 403, reason: "country_denied"},
		{name: "the network", path: "/office", headers: from("10.1.2.3"), status: 200},
		{name: "the country", path: "/office", headers: from("192.0.2.1"), status: 200},
		{name: "the denied network of the country", path: "/office", headers: from("192.0.2.7"), status: 403, reason: "address_denied"},
		{name: "neither", path: "/office", headers: from("192.0.3.1"), status: 403, reason: "country_denied"},
		{name: "the denied country", path: "/office", headers: from("198.51.100.1"), status: 403, reason: "country_denied"},
		{name: "a field", path: "/fields", headers: append(from("192.0.2.1"), "X-Country: KP"), status: 200, sees: []string{"X-Country: DE"}, hidden: []string{"X-Country: KP"}},
		{name: "a condition", path: "/when", headers: from("192.0.3.1"), status: 200},
		{name: "a condition that does not hold", path: "/when", headers: from("2001:db8::1"), status: 403, reason: "access_condition"},
		{name: "a condition on what is not known", path: "/when", headers: from("203.0.113.1"), status: 403, reason: "access_condition"},
	})
	if err := g.observer.SetAccessLog(nil); err != nil { // it is written out
		t.Fatal(err)
	}
	log, err := os.ReadFile(lines)
	if err != nil {
		t.Fatal(err)
	}
	known, other := 0, 0
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, `"remote_addr":"192.0.2.9"`) && strings.Contains(line, `"country":"DE"`) {
			known++
		}
		if strings.Contains(line, `"remote_addr":"203.0.113.1"`) && strings.Contains(line, `"country"`) {
			other++
		}
	}
	if known != 2 || other != 0 {
		t.Errorf("%d lines have the country that is known, and %d one that is not:\n%s", known, other, log)
	}
}
