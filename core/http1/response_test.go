package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

func responseWith(lines ...string) string {
	return "HTTP/1.1 200 OK\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

func TestResponseAccepted(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{responseHead, "200 OK keep-alive length=1024"},
		{responseWith(), "200 OK"},
		{"HTTP/1.1 200 \r\n\r\n", "200 "},
		{"HTTP/1.1 200\r\n\r\n", "200 "},
		{"HTTP/1.1 599 sp\xe4t\there\r\n\r\n", "599 sp\xe4t\there"},
		{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", "200 OK 1.0 keep-alive length=5"},
		{"HTTP/1.0 200 OK\r\n\r\n", "200 OK 1.0 close"},
		{responseWith("Connection: close", "Transfer-Encoding: chunked"), "200 OK chunked close"},
		{"HTTP/1.1 100 Continue\r\n\r\n", "100 Continue"},
		{"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "103 Early Hints"},
		{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "101 Switching Protocols upgrade"},
		{"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", "426 Upgrade Required length=0"},
		{"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 No Content"},
		{"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", "304 Not Modified length=10"},
		{responseWith("Content_Length: 7", "X_Forwarded_For: 1", "Host: @", "Host: @"), "200 OK"},
	} {
		var m core.Message
		in := []byte(c.in + "next")
		m.Reset()
		n, err := ParseResponse(&m, in, &wideLimits)
		if err != nil || n != len(c.in) {
			t.Errorf("%q: n = %d, %v", c.in, n, err)
			continue
		}
		m.Adopt(in[:n])
		got := fmt.Sprintf("%d %s", m.Status, m.Bytes(m.Reason))
		for _, f := range []struct {
			name string
			set  bool
		}{{"1.0", m.HTTP10}, {"chunked", m.Chunked}, {"close", m.Close}, {"keep-alive", m.KeepAlive}, {"upgrade", m.Upgrade}} {
			if f.set {
				got += " " + f.name
			}
		}
		if m.ContentLength >= 0 {
			got += fmt.Sprintf(" length=%d", m.ContentLength)
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
		if m.Status == 204 && m.Has(core.FieldContentLength) {
			t.Error("204 keeps its Content-Length")
		}
		for k := range n {
			m.Reset()
			if got, err := ParseResponse(&m, in[:k], &wideLimits); got != 0 || err != nil {
				t.Errorf("%q: n = %d, %v", in[:k], got, err)
			}
		}
	}
}

func TestResponseRefused(t *testing.T) {
	for _, c := range []struct{ name, in, detail string }{
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "status line"},
		{"empty line before", "\r\n" + responseWith(), "status line"},
		{"HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n", "version"},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", "version"},
		{"two digits", "HTTP/1.1 20 OK\r\n\r\n", "status line"},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", "status line"},
		{"signed status", "HTTP/1.1 +20 OK\r\n\r\n", "status line"},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", "status line"},
		{"status 600", "HTTP/1.1 600 OK\r\n\r\n", "status line"},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", "status line"},
		{"short line", "HTTP/1.1 2x", "status line"},
		{"control byte in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", "status line"},
		{"bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", "bare CR"},
		{"bare LF", "HTTP/1.1 200 OK\n\r\n", "bare LF"},
		{"bare LF after a field", responseWith("X: a\nY: b"), "bare LF"},
		{"folded line", responseWith("X: a", " b"), "folded"},
		{"space before the colon", responseWith("X : a"), "before a colon"},
		{"NUL in a value", responseWith("X: \x00"), "control byte"},
		{"both framings", responseWith("Content-Length: 5", "Transfer-Encoding: chunked"), "with Transfer-Encoding"},
		{"two lengths", responseWith("Content-Length: 5", "Content-Length: 5"), "several Content-Length"},
		{"list of lengths", responseWith("Content-Length: 5, 5"), "invalid Content-Length"},
		{"unknown coding", responseWith("Transfer-Encoding: gzip, chunked"), "unknown transfer coding"},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"},
		{"chunked 204", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "has none"},
		{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "has none"},
		{"1xx with a length", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n", "has none"},
		{"101 without Upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "101"},
		{"too many fields", responseWith(strings.Repeat("X: y\r\n", 100) + "X: y"), "too many fields"},
		{"too large", responseWith("X: " + strings.Repeat("a", 40<<10)), "too large"},
	} {
		var m core.Message
		m.Reset()
		n, err := ParseResponse(&m, []byte(c.in), &wideLimits)
		if n != 0 || err == nil {
			t.Errorf("%s: accepted: n = %d", c.name, n)
			continue
		}
		if err.Status != 502 || err.Reason != "bad_response" || err.Side != core.SideUpstream || err.Retry != core.RetryMalformed || !strings.Contains(err.Detail, c.detail) {
			t.Errorf("%s: error %+v, want %q", c.name, err, c.detail)
		}
	}
}

func TestRemoveHopByHop(t *testing.T) {
	f := func(lines, want string) {
		t.Helper()
		in := []byte("GET / HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n")
		var m core.Message
		m.Reset()
		if n, err := ParseRequest(&m, in, &wideLimits); n != len(in) || err != nil {
			t.Fatalf("%q: %d, %v", in, n, err)
		}
		m.Adopt(in)
		RemoveHopByHop(&m)
		if got := string(m.AppendLines(nil)); got != "Host: a\r\n"+want {
			t.Errorf("%q: got %q", lines, got)
		}
	}
	f("X: 1\r\n", "X: 1\r\n")
	f("Connection: keep-alive\r\nX: 1\r\n", "X: 1\r\n")
	f("Connection: X-One, close\r\nx-one: 1\r\nX-Two: 2\r\nX-ONE: 3\r\n", "X-Two: 2\r\n")
	f("x-one: 1\r\nX-Two: 2\r\nConnection: x-one\r\nCONNECTION: ,\tx-two ,x-three\r\n", "")
	f("Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n", "")
	f("Proxy-Authorization: x\r\nProxy-Authenticate: x\r\nTrailer: X\r\n", "Trailer: X\r\n")
	f("Connection: upgrade\r\nUpgrade: websocket\r\n", "Upgrade: websocket\r\n")
	f("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", "")
	const kept = "Authorization: a\r\nCookie: b\r\nX-Forwarded-For: c\r\nForwarded: d\r\nX-Real-IP: e\r\nX-Request-ID: f\r\nVia: g\r\nContent-Length: 5\r\n"
	f(kept+"Connection: Host, Authorization, cookie, x-forwarded-for, forwarded, x-real-ip, x-request-id, via, content-length\r\n", kept)
}
