package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIPFiles: addresses are judged by lists that stand in files, which are followed; a reload reads them anew, and is refused for one that is
// wrong.
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

// TestIPFilesFollowed: a file of networks is taken over when it has changed, written or replaced, by all who name it, without a reload and
// without one request that is judged by neither of the two. One that is wrong or gone leaves what was in force, and is told once, with its
// place, and counted; a reload in between reads what there is then, and goes on from there.
func TestIPFilesFollowed(t *testing.T) {
	folder := t.TempDir()
	list := filepath.Join(folder, "list")
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(list+".next", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(list+".next", list); err != nil {
			t.Fatal(err)
		}
	}
	replace("10.1.0.0/16\n")
	g := run(t, `
loops: 2
listeners: { http: { bind: "127.0.0.1:0", real_ip: { header: X-Forwarded-For, trusted: [127.0.0.0/8] } } }
routes:
  - { match: /deny, use: [{ ip: { deny: [10.9.0.0/16, "file:`+list+`"] } }], respond: {} }
  - { match: /allow, use: [{ ip: { allow: "file:`+list+`" } }], respond: {} }
`)
	in := func(addr string) bool {
		t.Helper()
		deny, _ := forwardGet(t, g.addr, "/deny", map[string]string{"X-Forwarded-For": addr})
		allow, _ := forwardGet(t, g.addr, "/allow", map[string]string{"X-Forwarded-For": addr})
		if deny.StatusCode+allow.StatusCode != 200+403 {
			return false // one of the two was asked before the change
		}
		return deny.StatusCode == 403
	}
	series := func(name string) string { return g.metric(name + `{kind="networks",file="` + list + `"}`) }
	fares := func(when, failing, failures string) {
		t.Helper()
		if a, b := series("sluice_followed_file_failing"), series("sluice_followed_file_failures_total"); a != failing || b != failures {
			t.Errorf("%s: failing %q, %q times; want %q, %q", when, a, b, failing, failures)
		}
	}
	if !in("10.1.0.1") || in("10.2.0.1") {
		t.Fatal("the list is not in force")
	}
	fares("at first", "0", "0")
	began := time.Now()
	replace("10.2.0.0/16\n2001:db8::/32\n")
	g.eventually("the file that was replaced is in force", func() bool { return in("10.2.0.1") && in("2001:db8::1") && !in("10.1.0.1") })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if got, _ := forwardGet(t, g.addr, "/deny", map[string]string{"X-Forwarded-For": "10.9.0.1"}); got.StatusCode != 403 {
		t.Error("what stands beside the file has gone")
	}

	replace("10.3.0.0/16\n10.4.0.0/33\n")
	place := list + `:2:1: `
	g.logged(place)
	if !in("10.2.0.1") || in("10.3.0.1") {
		t.Error("a wrong file has changed what is in force")
	}
	fares("while it is wrong", "1", "1")
	if err := g.admin.Reload(true); err == nil || !strings.Contains(err.Error(), place) {
		t.Errorf("a reload with a wrong file: %v", err)
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	g.logged("no such file")
	if !in("10.2.0.1") {
		t.Error("the last good list is lost")
	}
	fares("while it is away", "1", "2")

	replace("10.5.0.0/16\n")
	g.reload()
	if !in("10.5.0.1") || in("10.2.0.1") {
		t.Error("a reload does not read the file")
	}
	fares("after a reload", "0", "2")
	replace("# nobody\n")
	g.eventually("an empty file is in force", func() bool { return !in("10.5.0.1") && series("sluice_followed_file_failing") == "0" })
	if got, _ := forwardGet(t, g.addr, "/allow", map[string]string{"X-Forwarded-For": "10.5.0.1"}); got.StatusCode != 403 {
		t.Error("an allow list of nobody lets somebody pass")
	}
	if err := os.WriteFile(list, []byte("10.6.0.0/16\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.eventually("the file that was written over is in force", func() bool { return in("10.6.0.1") })
	if n := strings.Count(g.log.String(), "the file is of no use"); n != 2 { // it was wrong, and away
		t.Errorf("the file's faults are logged %d times:\n%s", n, g.log)
	}
}
