package admin

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSigningKeys: whoever verifies tokens gets the public keys and may keep them, operators see what each is there for, and where none is
// signed there is none.
func TestSigningKeys(t *testing.T) {
	var off atomic.Bool
	g := &gateway{}
	source := g.source()
	source.SigningKeys = func() []SigningKeyStatus {
		return []SigningKeyStatus{{ID: "k2\x1b", Algorithm: "ES256", State: "next", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
	}
	source.IdentityKeys = func() (string, string, string) {
		if off.Load() {
			return "", "", ""
		}
		return `{"keys":[]}`, "application/jwk-set+json", "public, max-age=300"
	}
	l := serveSource(t, source, socket(t))
	f := func(request string, want ...string) {
		t.Helper()
		got := raw(t, l, fmt.Sprintf("%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", request))
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in %s", request, w, got)
			}
		}
	}
	f("GET /signing-keys", "HTTP/1.1 200 ", `"kid": "k2\u001b"`, `"state": "next"`, "no-store")
	f("GET /.well-known/jwks.json", "HTTP/1.1 200 ", `{"keys":[]}`, "Content-Type: application/jwk-set+json", "Cache-Control: public, max-age=300")
	f("PUT /.well-known/jwks.json", "HTTP/1.1 405 ", "Allow: GET, HEAD")
	off.Store(true)
	f("GET /.well-known/jwks.json", "HTTP/1.1 404 ", "no tokens are signed", "no-store")
	var out, errs bytes.Buffer
	if code := Ctl([]string{"--admin", "unix:" + l.Addr().String(), "signing-keys"}, &out, &errs); code != exitOK ||
		!strings.Contains(out.String(), `k2\x1b  ES256      next   2026-01-02T03:04:05Z  -`) {
		t.Errorf("%d, %s%s", code, &out, &errs)
	}
}

// serveSource serves one on b until the test ends.
func serveSource(t *testing.T, source Source, b Bind) net.Listener {
	t.Helper()
	l, _, err := Listen(b)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(source, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}
