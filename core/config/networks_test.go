package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNetworksFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "networks")
	f := func(text string, want ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := ReadNetworksFile(path)
		if err != nil {
			if got := strings.TrimPrefix(err.Error(), path); len(want) != 1 || !strings.HasPrefix(got, want[0]) {
				t.Errorf("%.40q: %v, want %q", text, err, want)
			}
			return
		}
		var got []string
		for _, p := range file.Prefixes {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%.40q: %q, want %q", text, got, want)
		}
	}
	f("")
	f("# nobody\n\n  \t\r\n#")
	f("\ufeff10.0.0.0/8\r\n  192.0.2.7 # one\n2001:db8::/32", "10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")
	f("10.0.0.0/8\n  10.0.0.1/8", `:2:3: "10.0.0.1/8" is no CIDR`)
	f("::ffff:10.0.0.0/104", ":1:1: ")
	f("fe80::1%eth0", ":1:1: ")
	f("10.0.0.0/8 10.0.0.0/8", ":1:1: ")
	f("\x00", ":1:1: ")
	f(strings.Repeat("10.0.0.1\n", maxNetworks+1), fmt.Sprintf(":%d:1: the file has more than %d", maxNetworks+1, maxNetworks))
	f(strings.Repeat("#", maxFileBytes+1), ": the file is larger than 16MiB")
	if _, err := ReadNetworksFile(path + "not"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// TestNetworksDump: a file is told by its name, not by what stands in it now.
func TestNetworksDump(t *testing.T) {
	env := Env{ReadFile: func(path string) ([]byte, error) { return []byte("192.0.2.0/24\n"), nil }}
	read := func(text string) *Config {
		t.Helper()
		cfg, problems := Parse("sluice.yaml", []byte(text), env)
		if cfg == nil {
			t.Fatal(problems)
		}
		return cfg
	}
	cfg := read("listeners: { a: { bind: \":1\" } }\npolicies: { p: { ip: { allow: [\"file:/a\", 10.0.0.0/8], deny: \"file:/b\" } } }\nroutes: [{ match: /*, use: p, respond: {} }]\n")
	text := string(cfg.Dump())
	if strings.Contains(text, "192.0.2") {
		t.Error(text)
	}
	p := read(text).Policies[0].IP
	if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}; !slices.Equal(p.Allow.Prefixes, want) || len(p.Allow.Files) != 1 || p.Allow.Files[0].Path != "/a" ||
		len(p.Deny.Prefixes) != 0 || len(p.Deny.Files) != 1 || len(p.Deny.Files[0].Prefixes) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestNetworksBounds(t *testing.T) {
	env := Env{ReadFile: func(string) ([]byte, error) { return nil, nil }}
	var files []string
	for i := range maxNetworksFiles + 1 {
		files = append(files, fmt.Sprintf("%q", fmt.Sprint("file:/", i)))
	}
	text := "listeners: { a: { bind: \":1\" } }\nroutes: [{ match: /*, use: [{ ip: { deny: [" + strings.Join(files, ", ") + "] } }], respond: {} }]\n"
	if _, problems := Parse("sluice.yaml", []byte(text), env); !strings.Contains(problems.String(), `"deny" has more than 16 files`) {
		t.Error(problems)
	}
}
