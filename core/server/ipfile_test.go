package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestIPFiles: addresses are judged by lists that stand in files, which a reload reads anew; one that is wrong leaves what is in force.
func TestIPFiles(t *testing.T) {
	folder := t.TempDir()
	allow, deny := filepath.Join(folder, "allow"), filepath.Join(folder, "deny")
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(allow, "# partners\n10.0.0.0/8 # of old\n\n  2001:db8::/32\r\n192.0.2.7\n")
	put(deny, "10.1.0.0/16\n2001:db8:bad::/48\n")
	g := run(t, `
listeners: { http: { bind: "127.0.0.1:0", real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] } } }
routes: [{ match: "/*", use: [{ ip: { allow: ["file:`+allow+`", 198.51.100.0/24], deny: "file:`+deny+`" } }], respond: {} }]
`)
	f := func(when string, passes bool, addrs ...string) {
		t.Helper()
		for _, a := range addrs {
			res, body := forwardGet(t, g.addr, "/", map[string]string{"X-Forwarded-For": a})
			if passes != (res.StatusCode == 200) || !passes && (res.StatusCode != 403 || !strings.Contains(body, `"error":"address_denied"`)) {
				t.Errorf("%s, %s: %d %s", when, a, res.StatusCode, body)
			}
		}
	}
	f("at first", true, "10.0.0.1", "2001:db8::1", "192.0.2.7", "198.51.100.1")
	f("at first", false, "10.1.2.3", "2001:db8:bad::1", "192.0.2.8", "203.0.113.1", "2001:db9::1")
	put(allow, "203.0.113.0/24\n10.0.0.0/8\n")
	put(deny, "10.2.0.0/16\n")
	f("before the reload", true, "2001:db8::1")
	g.reload()
	f("after it", true, "203.0.113.1", "10.1.2.3", "198.51.100.1")
	f("after it", false, "2001:db8::1", "192.0.2.7", "10.2.0.1")
	put(deny, "10.2.0.0/16\n203.0.113.0/33\n")
	if err := g.admin.Reload(true); err == nil || !strings.Contains(err.Error(), deny+":2") {
		t.Errorf("a wrong file: %v", err)
	}
	f("after a wrong one", true, "203.0.113.1")
	f("after a wrong one", false, "10.2.0.1")
}
