package server

import (
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestClusterEncrypted shares limits in a Redis that is spoken with by TLS, and asks for certificates. A Redis that is not whom the
// gateway trusts is away: what is then done is what each policy says, and why is told.
func TestClusterEncrypted(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	for name, a := range map[string]*authority{"ours": ours, "others": others} {
		a.put(folder, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
		cert, key := a.issue(false, "redis.test")
		a.put(folder, name+"-pair", cert, key)
	}
	r := newRedisServer(t, "--tls-cert-file", file("ours-pair.pem"), "--tls-key-file", file("ours-pair.key"), "--tls-ca-cert-file", file("ours.pem"),
		"--tls-auth-clients", "yes")
	f := func(ca, certificate, problem string) {
		t.Helper()
		tls := fmt.Sprintf("server_name: redis.test, ca: %q", file(ca+".pem"))
		if certificate != "" {
			tls += fmt.Sprintf(", certificate: { cert: %q, key: %q }", file(certificate+".pem"), file(certificate+".key"))
		}
		text := fmt.Sprintf("loops: 1\nlisteners: { http: { bind: \"127.0.0.1:0\" } }\ncluster: { redis: { addresses: %q, timeout: 1s, tls: { %s } } }\nroutes:\n", r.addr, tls)
		for i, away := range []string{"local", "allow", "deny"} {
			text += fmt.Sprintf("  - { match: /%d, use: [{ rate_limit: { limit: 3/day, algorithm: fixed_window, key: global, mode: strict, on_error: %s } }], respond: {} }\n", i, away)
		}
		g := newGate(t, text)
		client := newH1Client(t)
		want := []int{3, 3, 3}
		if problem == "" {
			g.knows(true)
		} else {
			want = []int{3, 10, 0}
			eventually(t, "the problem is told", func() bool { return strings.Contains(clusterStatus(g.state.Load().compiled.Redis()).Problem, problem) })
		}
		for i := range want {
			n := 0
			for range 10 {
				if g.get(client, fmt.Sprintf("/%d", i)).StatusCode == 200 {
					n++
				}
			}
			if n != want[i] {
				t.Errorf("authority %s, certificate %q: route %d admits %d of 10, want %d", ca, certificate, i, n, want[i])
			}
		}
		if s := clusterStatus(g.state.Load().compiled.Redis()); s.Away != (problem != "") || s.Shards != 1 || s.Away != (s.Missing == 1) {
			t.Errorf("authority %s, certificate %q: %+v", ca, certificate, s)
		}
	}
	f("others", "ours-pair", "unknown authority")
	f("ours", "others-pair", "certificate")
	f("ours", "ours-pair", "")
}
