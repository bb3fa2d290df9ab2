package server

import (
	"strings"
	"testing"
)

// TestForwardTrust: what a request says in X-Forwarded-* of the one before it reaches the service only with trust_forwarded, and only of a peer
// that real_ip trusts; else the service learns what the gateway knows, and nothing of what was said.
func TestForwardTrust(t *testing.T) {
	s := newAuthService(t)
	said := map[string]string{"Authorization": "User ann", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example", "X-Forwarded-Uri": "/first?a=1",
		"X-Forwarded-Method": "PUT", "X_Forwarded_Uri": "/spelled", "X-Forwarded-User": "root"}
	for _, c := range []struct {
		trusted, path string
		client        string
		passed        bool
	}{
		{"127.0.0.0/8", "/on", "203.0.113.9, 127.0.0.1", true},
		{"127.0.0.0/8", "/off", "203.0.113.9", false},
		{"192.0.2.0/24", "/on", "127.0.0.1", false},
		{"192.0.2.0/24", "/off", "127.0.0.1", false},
	} {
		text := strings.NewReplacer(`bind: "127.0.0.1:0"`, "bind: \"127.0.0.1:0\"\n    real_ip: { header: X-Forwarded-For, trusted: ["+c.trusted+"] }",
			`[{ match: "/*", to: a }]`, `
  - { match: /on, use: [{ forward: { url: "`+s.url+`/check", trust_forwarded: true } }], to: a }
  - { match: /off, use: [{ forward: { url: "`+s.url+`/check" } }], to: a }
`).Replace(h2Config(newMirror(t), "[h1, h2c]"))
		g := newGate(t, text)
		want := []string{"X-Forwarded-For: " + c.client + "\r\n"}
		if c.passed {
			want = append(want, "X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: shop.example\r\n", "X-Forwarded-Uri: /first?a=1\r\n", "X-Forwarded-Method: PUT\r\n")
		} else {
			want = append(want, "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: "+g.addr+"\r\n", "X-Forwarded-Uri: "+c.path+"\r\n", "X-Forwarded-Method: GET\r\n")
		}
		res, body := forwardGet(t, g.addr, c.path, said)
		saw := s.saw()
		for _, w := range want {
			name, _, _ := strings.Cut(w, ":")
			if !strings.Contains(saw, w) || strings.Count(saw, name+":") != 1 {
				t.Errorf("%s, trusting %s: %d %s: the service has not seen %q once:\n%s", c.path, c.trusted, res.StatusCode, body, w, saw)
			}
		}
		for _, never := range []string{"root", "/spelled"} {
			if strings.Contains(saw, never) {
				t.Errorf("%s, trusting %s: the service has seen %q:\n%s", c.path, c.trusted, never, saw)
			}
		}
	}
}
