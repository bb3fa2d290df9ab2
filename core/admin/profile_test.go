package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

func TestProfiles(t *testing.T) {
	l := (&gateway{}).serve(t, loopback())
	for _, c := range []struct {
		request, status string
		has             []string
	}{
		{"GET /debug/pprof/", "200", []string{"\r\n\r\nallocs\n", "\nprofile\n", "text/plain"}},
		{"GET /debug/pprof/goroutine?debug=2", "200", []string{"TestProfiles", "text/plain"}},
		{"GET /debug/pprof/heap", "200", []string{"application/octet-stream", "\r\n\r\n\x1f\x8b"}}, // gzip, as the tool wants it
		{"GET /debug/pprof/heap?debug=x", "400", []string{"0 to 2"}},
		{"GET /debug/pprof/profile?seconds=61", "400", []string{"0 to 60"}},
		{"GET /debug/pprof/profile?seconds=-1", "400", nil},
		{"GET /debug/pprof/trace?seconds=0", "200", []string{"\r\n\r\ngo 1."}},
		{"GET /debug/pprof/nothing", "404", []string{"no such path"}},
		{"POST /debug/pprof/heap", "405", []string{"Allow: GET, HEAD"}},
	} {
		got := raw(t, l, c.request+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
			t.Errorf("%s: want %s, got %.300q", c.request, c.status, got)
		}
		for _, has := range c.has {
			if !strings.Contains(got, has) {
				t.Errorf("%s: no %q in %.300q", c.request, has, got)
			}
		}
	}
}

func TestShutdownEndsProfiles(t *testing.T) {
	l, _, err := Listen(loopback())
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer((&gateway{}).source(), slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	const request = "GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	first, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close() //nolint:errcheck // the test is over
	if _, err := io.WriteString(first, request); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got := raw(t, l, strings.Replace(request, "=60", "=0", 1))
		if strings.HasPrefix(got, "HTTP/1.1 409 ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a second profile at once: %s", got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(first); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") || !strings.Contains(string(got), "\r\n\r\n\x1f\x8b") {
		t.Errorf("what was sampled until the end is not given: %.200q %v", got, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
