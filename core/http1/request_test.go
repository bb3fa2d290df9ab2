package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// requestWith builds a request head from a request line and field lines, with the Host that most cases need.
func requestWith(lines ...string) string {
	return "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func TestRequestRefused(t *testing.T) {
	const bad = 400
	for _, c := range []struct {
		name, in string
		status   int
		detail   string
	}{
		{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", bad, "bare LF"},
		{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", bad, "bare LF"},
		{"bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", bad, "bare LF"},
		{"bare LF before the request line", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"bare CR in a value", requestWith("X: a\rb"), bad, "bare CR"},
		{"bare CR in a name", requestWith("X\rY: a"), bad, "bare CR"},
		{"bare CR before a line", requestWith("\rX: a"), bad, "bare CR"},
		{"bare CR before the request line", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", bad, "bare CR"},
		{"bare CR after the version", "GET / HTTP/1.1\rHost: a\r\n\r\n", bad, "bare CR"},
		{"two empty lines before the request line", "\r\n\r\n" + smallHead, bad, "request line"},
		{"folded line", requestWith("X: a", " b"), bad, "folded"},
		{"folded line with a tab", requestWith("X: a", "\tb"), bad, "folded"},
		{"white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", bad, "folded"},
		{"space before the colon", requestWith("Content-Length : 5"), bad, "before a colon"},
		{"tab before the colon", requestWith("Content-Length\t: 5"), bad, "before a colon"},
		{"no colon", requestWith("X"), bad, "field name"},
		{"empty name", requestWith(": x"), bad, "field name"},
		{"NUL in a name", requestWith("X\x00: a"), bad, "field name"},
		{"obs-text in a name", requestWith("X\xe9: a"), bad, "field name"},
		{"DEL in a name", requestWith("X\x7f: a"), bad, "field name"},
		{"separator in a name", requestWith("X(1): a"), bad, "field name"},
		{"NUL in a value", requestWith("X: a\x00b"), bad, "control byte"},
		{"VT in a value", requestWith("X: a\x0bb"), bad, "control byte"},
		{"DEL in a value", requestWith("X: aaaaaaaaaaaaaaaa\x7f"), bad, "control byte"},
		{"escape in a value", requestWith("X: \x1b"), bad, "control byte"},

		{"no request line", "\r\nHost: a\r\n\r\n", bad, "request line"},
		{"no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"method with a separator", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"TLS on a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bad, "request line"},
		{"HTTP/0.9", "GET /\r\n", bad, "request line"},
		{"two spaces after the method", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"two spaces after the target", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"space after the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", bad, "request line"},
		{"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", bad, "request line"},
		{"version with two digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", bad, "request line"},
		{"version without a dot", "GET / HTTP/11\r\nHost: a\r\n\r\n", bad, "request line"},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "version"},
		{"HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"},
		{"HTTP/0.9 spelt out", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "version"},
		{"HTTP/3.1", "GET / HTTP/3.1\r\nHost: a\r\n\r\n", 505, "version"},

		{"NUL in the target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", bad, "byte in the target"},
		{"DEL in a long target", "GET /0123456789\x7f HTTP/1.1\r\nHost: a\r\n\r\n", bad, "byte in the target"},
		{"obs-text in the target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", bad, "byte in the target"},
		{"fragment", "GET /0123456789#x HTTP/1.1\r\nHost: a\r\n\r\n", bad, "fragment"},
		{"relative target", "GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"empty authority", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", bad, "authority"},
		{"user information", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", bad, "authority"},
		{"asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"more than an asterisk", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"authority form with GET", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", bad, "form"},
		{"CONNECT with a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"CONNECT without a port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"CONNECT with a URI", "CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", bad, "form"},
		{"CONNECT with a body", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n", bad, "CONNECT with a body"},
		{"CONNECT that disagrees", "CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", bad, "disagrees"},

		{"no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", bad, "no Host"},
		{"no field at all", "GET / HTTP/1.1\r\n\r\n", bad, "no Host"},
		{"no Host with an absolute form", "GET http://a/ HTTP/1.1\r\n\r\n", bad, "no Host"},
		{"two Host", requestWith("Host: a"), bad, "several Host"},
		{"two Host in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", bad, "several Host"},
		{"empty Host", "GET / HTTP/1.1\r\nHost: \r\n\r\n", bad, "invalid Host"},
		{"absolute form and another Host", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", bad, "disagrees"},
		{"absolute form and an empty Host", "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", bad, "disagrees"},
		{"absolute form and another port", "GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n", bad, "disagrees"},
		{"absolute form with a port, Host without", "GET https://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", bad, "disagrees"},

		{"empty Content-Length", requestWith("Content-Length:"), bad, "invalid Content-Length"},
		{"signed Content-Length", requestWith("Content-Length: +5"), bad, "invalid Content-Length"},
		{"negative Content-Length", requestWith("Content-Length: -5"), bad, "invalid Content-Length"},
		{"hexadecimal Content-Length", requestWith("Content-Length: 0x5"), bad, "invalid Content-Length"},
		{"Content-Length with a space", requestWith("Content-Length: 1 0"), bad, "invalid Content-Length"},
		{"Content-Length with a point", requestWith("Content-Length: 5.0"), bad, "invalid Content-Length"},
		{"list of equal Content-Length", requestWith("Content-Length: 5, 5"), bad, "invalid Content-Length"},
		{"overflowing Content-Length", requestWith("Content-Length: 18446744073709551621"), bad, "invalid Content-Length"},
		{"two Content-Length", requestWith("Content-Length: 5", "Content-Length: 6"), bad, "several Content-Length"},
		{"two equal Content-Length", requestWith("Content-Length: 5", "content-length: 5"), bad, "several Content-Length"},
		{"Content-Length, then Transfer-Encoding", requestWith("Content-Length: 5", "Transfer-Encoding: chunked"), bad, "with Transfer-Encoding"},
		{"Transfer-Encoding, then Content-Length", requestWith("Transfer-Encoding: chunked", "Content-Length: 5"), bad, "with Transfer-Encoding"},
		{"two Transfer-Encoding", requestWith("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), bad, "several Transfer-Encoding"},
		{"chunked twice", requestWith("Transfer-Encoding: chunked, chunked"), bad, "malformed Transfer-Encoding"},
		{"chunked not last", requestWith("Transfer-Encoding: chunked, gzip"), bad, "malformed Transfer-Encoding"},
		{"chunked with a parameter", requestWith("Transfer-Encoding: chunked;q=1"), bad, "malformed Transfer-Encoding"},
		{"chunked with a comma", requestWith("Transfer-Encoding: chunked,"), bad, "malformed Transfer-Encoding"},
		{"chunked after a comma", requestWith("Transfer-Encoding: ,chunked"), bad, "malformed Transfer-Encoding"},
		{"empty Transfer-Encoding", requestWith("Transfer-Encoding:"), bad, "malformed Transfer-Encoding"},
		{"quoted chunked", requestWith("Transfer-Encoding: \"chunked\""), bad, "malformed Transfer-Encoding"},
		{"two words", requestWith("Transfer-Encoding: chunked foo"), bad, "malformed Transfer-Encoding"},
		{"VT before chunked", requestWith("Transfer-Encoding: \x0bchunked"), bad, "control byte"},
		{"other coding", requestWith("Transfer-Encoding: gzip"), 501, "unknown"},
		{"other coding before chunked", requestWith("Transfer-Encoding: gzip, chunked"), 501, "unknown"},
		{"identity", requestWith("Transfer-Encoding: identity"), 501, "unknown"},
		{"nearly chunked", requestWith("Transfer-Encoding: xchunked"), 501, "unknown"},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", bad, "HTTP/1.0"},
		{"look-alike of Transfer-Encoding", requestWith("Transfer_Encoding: chunked"), bad, "look-alike"},
		{"look-alike of Content-Length", requestWith("content_length: 5"), bad, "look-alike"},
		{"another one", requestWith("Content.Length: 5"), bad, "look-alike"},
		{"too many connection options", requestWith("Connection: " + strings.Repeat("a,", 65)), bad, "options"},
		{"too many connection options in lines", requestWith(strings.Repeat("Connection: a,b\r\n", 33) + "X: y"), bad, "options"},
		{"too many fields", requestWith(strings.Repeat("X: y\r\n", 99) + "X: y"), 431, "fields"},
		{"line too long", "GET /" + strings.Repeat("a", 40<<10), 414, "line"},
		{"line too long, whole", "GET /" + strings.Repeat("a", 40<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "line"},
		{"head too large", requestWith("X: " + strings.Repeat("a", 40<<10)), 431, "head"},
		{"head too large, name only", "GET / HTTP/1.1\r\n" + strings.Repeat("a", 40<<10), 431, "head"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m core.Message
			m.Reset()
			n, err := ParseRequest(&m, []byte(c.in), &wideLimits)
			if err == nil {
				t.Fatalf("accepted: n = %d", n)
			}
			if n != 0 || err.Status != c.status || !strings.Contains(err.Detail, c.detail) || err.Side != core.SideDownstream || !err.Close {
				t.Errorf("n = %d, error %d %q of %v, want %d %q", n, err.Status, err, err.Side, c.status, c.detail)
			}
		})
	}
}

// A wrong line is refused before the rest of the head has come, however slowly the bytes arrive.
func TestRequestRefusedAtOnce(t *testing.T) {
	for _, line := range []string{
		"GET / HTTP/1.1\n", "GET / HTTP/3.0\r\n", "GET /#x ", "G(T ", "GET x HTTP/1.1\r\n",
		"GET / HTTP/1.1\r\nX : y\r\n", "GET / HTTP/1.1\r\nX: y\n", "GET / HTTP/1.1\r\n X: y\r\n", "GET / HTTP/1.1\r\nX\r\n",
		"GET / HTTP/1.1\r\nHost: a@b\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", "GET / HTTP/1.1\r\nTransfer-Encoding: x\r\n",
	} {
		var m core.Message
		m.Reset()
		if _, err := ParseRequest(&m, []byte(line), &wideLimits); err == nil {
			t.Errorf("%q: not refused", line)
		}
	}
}

// describe writes down all that the parser found.
func describe(m *core.Message) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s(%d) %s host=%s", m.MethodBytes(), m.Method, m.Bytes(m.Target), m.Host())
	for _, f := range []struct {
		name string
		set  bool
	}{{"1.0", m.HTTP10}, {"chunked", m.Chunked}, {"close", m.Close}, {"keep-alive", m.KeepAlive}, {"upgrade", m.Upgrade}, {"expect", m.Expect100}} {
		if f.set {
			s.WriteString(" " + f.name)
		}
	}
	if m.ContentLength >= 0 {
		fmt.Fprintf(&s, " length=%d", m.ContentLength)
	}
	m.All(func(id core.FieldID, name, value []byte) bool {
		if id != core.FieldHost {
			fmt.Fprintf(&s, " [%s=%s]", name, value)
		}
		return true
	})
	return s.String()
}

func TestRequestAccepted(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{smallHead, "GET(1) / host=127.0.0.1:8080"},
		{"\r\n" + smallHead, "GET(1) / host=127.0.0.1:8080"},
		{"GET / HTTP/1.0\r\n\r\n", "GET(1) / host= 1.0 close"},
		{"GET / HTTP/1.0\r\nHost:\r\n\r\n", "GET(1) / host= 1.0 close"},
		{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nExpect: 100-continue\r\nUpgrade: websocket\r\n\r\n", "GET(1) / host= 1.0 keep-alive [Connection=Keep-Alive] [Upgrade=websocket]"},
		{"GET /" + strings.Repeat("x", 20) + "?q={|}\"<> HTTP/1.1\r\nhost:a\r\n\r\n", "GET(1) /" + strings.Repeat("x", 20) + "?q={|}\"<> host=a"},
		{"PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE(0) /x host=a"},
		{"get / HTTP/1.1\r\nHost: a\r\n\r\n", "get(0) / host=a"},
		{"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", "OPTIONS(7) * host="},
		{"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT(6) a:443 host=a:443"},
		{"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", "CONNECT(6) [::1]:443 host=[::1]:443"},
		{"GET http://A.example HTTP/1.1\r\nHost: a.EXAMPLE:80\r\n\r\n", "GET(1) http://A.example host=A.example"},
		{"GET HTTPS://a:443?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET(1) HTTPS://a:443?q host=a:443"},
		{"GET http://a/ HTTP/1.0\r\n\r\n", "GET(1) http://a/ host=a 1.0 close"},
		{requestWith("X:\t \x80\xff\tb \t"), "GET(1) / host=a [X=\x80\xff\tb]"},
		{requestWith("X:", "Y:  ", "X:1"), "GET(1) / host=a [X=] [Y=] [X=1]"},
		{requestWith("!#$%&'*+.^_`|~: 1"), "GET(1) / host=a [!#$%&'*+.^_`|~=1]"},
		{requestWith("Content-Length: 007"), "GET(1) / host=a length=7 [Content-Length=007]"},
		{requestWith("Content-Length: 999999999999999999"), "GET(1) / host=a length=999999999999999999 [Content-Length=999999999999999999]"},
		{requestWith("TRANSFER-ENCODING:\tChunked "), "GET(1) / host=a chunked [TRANSFER-ENCODING=Chunked]"},
		{requestWith("Connection: x, close ,,"), "GET(1) / host=a close [Connection=x, close ,,]"},
		{requestWith("Connection: keep-alive, Upgrade", "Upgrade: websocket"), "GET(1) / host=a keep-alive upgrade [Connection=keep-alive, Upgrade] [Upgrade=websocket]"},
		{requestWith("Connection: Upgrade"), "GET(1) / host=a [Connection=Upgrade]"},
		{requestWith("Upgrade: websocket"), "GET(1) / host=a [Upgrade=websocket]"},
		{requestWith("Connection: upgrade", "Upgrade: h2c"), "GET(1) / host=a [Connection=upgrade] [Upgrade=h2c]"},
		{requestWith("Connection: upgrade", "Upgrade: websocket", "Upgrade: H2C/2"), "GET(1) / host=a [Connection=upgrade] [Upgrade=websocket] [Upgrade=H2C/2]"},
		{requestWith("Expect: 100-Continue"), "GET(1) / host=a expect [Expect=100-Continue]"},
		{requestWith("Expect: 100-continue", "Expect: more"), "GET(1) / host=a [Expect=100-continue] [Expect=more]"},
		{requestWith("X_Forwarded_For: 1", "x-real_ip: 2", "X_Other: 3"), "GET(1) / host=a [X_Other=3]"},
		{requestWith(strings.Repeat("X: y\r\n", 98) + "X: y"), "GET(1) / host=a" + strings.Repeat(" [X=y]", 99)},
	} {
		var m core.Message
		in := []byte(c.in + "next")
		m.Reset()
		n, err := ParseRequest(&m, in, &wideLimits)
		if err != nil || n != len(c.in) {
			t.Errorf("%q: n = %d, %v", c.in, n, err)
			continue
		}
		m.Adopt(in[:n])
		if got := describe(&m); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, got, c.want)
		}
		// All that is shorter is incomplete, never refused and never whole.
		for k := range n {
			m.Reset()
			if got, err := ParseRequest(&m, in[:k], &wideLimits); got != 0 || err != nil {
				t.Errorf("%q: n = %d, %v", in[:k], got, err)
			}
		}
	}
}

// The limit on bytes is exact, and the same whether the head comes at once or in parts.
func TestRequestLimit(t *testing.T) {
	in := []byte(browserHead + "body")
	var m core.Message
	for bytes := 1; bytes < len(in)+10; bytes++ {
		m.Reset()
		n, err := ParseRequest(&m, in, &Limits{HeaderBytes: bytes, Headers: 8})
		if whole := bytes >= len(browserHead); whole != (err == nil) || whole != (n == len(browserHead)) {
			t.Fatalf("limit %d: n = %d, %v", bytes, n, err)
		}
		m.Reset()
		part := in[:min(bytes, len(in))]
		if n2, err2 := ParseRequest(&m, part, &Limits{HeaderBytes: bytes, Headers: 8}); n2 != n || err2 != err {
			t.Errorf("limit %d, no more bytes than that: n = %d, %v", bytes, n2, err2)
		}
		if want := 431; err != nil {
			if bytes < strings.Index(browserHead, "\n")+1 {
				want = 414
			}
			if err.Status != want {
				t.Errorf("limit %d: status %d, want %d", bytes, err.Status, want)
			}
		}
	}
	m.Reset()
	if _, err := ParseRequest(&m, in, &Limits{HeaderBytes: 4096, Headers: 7}); err == nil || err.Status != 431 {
		t.Errorf("8 fields, 7 allowed: %v", err)
	}
}
