package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// malformed is a request that no upstream may see. The pieces of its body are sent one by one; the trailer ends it.
type malformed struct {
	name    string
	fields  []string
	body    []string
	trailer []string
	open    bool // the client does not end it
}

func malformedRequests() []malformed {
	get := func(more ...string) []string { return requestFields("GET", "/small", more...) }
	post := func(more ...string) []string { return requestFields("POST", "/whole", more...) }
	pseudo := func(method, scheme, authority, path string) []string {
		return []string{":method", method, ":scheme", scheme, ":authority", authority, ":path", path}
	}
	all := []malformed{
		{name: "upper-case name", fields: get("X-Upper", "v")},
		{name: "te: gzip", fields: get("te", "gzip")},
		{name: "te: trailers, gzip", fields: get("te", "trailers, gzip")},
		{name: "transfer_encoding", fields: get("transfer_encoding", "chunked")},
		{name: "path with a space", fields: pseudo("GET", "http", "a.example", "/a b")},
		{name: "path without a slash", fields: pseudo("GET", "http", "a.example", "small")},
		{name: "path that is a URL", fields: pseudo("GET", "http", "a.example", "http://b.example/small")},
		{name: "path of nothing", fields: pseudo("GET", "http", "a.example", "")},
		{name: "path with a fragment", fields: pseudo("GET", "http", "a.example", "/small#x")},
		{name: "path with CRLF", fields: pseudo("GET", "http", "a.example", "/small HTTP/1.1\r\nx: y")},
		{name: "asterisk", fields: pseudo("GET", "http", "a.example", "*")},
		{name: "method with a space", fields: pseudo("GET /small", "http", "a.example", "/small")},
		{name: "method of nothing", fields: pseudo("", "http", "a.example", "/small")},
		{name: "scheme", fields: pseudo("GET", "gopher", "a.example", "/small")},
		{name: "userinfo", fields: pseudo("GET", "http", "user@a.example", "/small")},
		{name: "authority with a path", fields: pseudo("GET", "http", "a.example/x", "/small")},
		{name: "authority with a space", fields: pseudo("GET", "http", "a example", "/small")},
		{name: "no authority", fields: []string{":method", "GET", ":scheme", "http", ":path", "/small"}},
		{name: "no path", fields: []string{":method", "GET", ":scheme", "http", ":authority", "a.example"}},
		{name: "no method", fields: []string{":scheme", "http", ":authority", "a.example", ":path", "/small"}},
		{name: "no scheme", fields: []string{":method", "GET", ":authority", "a.example", ":path", "/small"}},
		{name: "other host", fields: get("host", "b.example")},
		{name: "two hosts", fields: get("host", "a.example", "host", "a.example")},
		{name: "late pseudo-field", fields: get("x-a", "b", ":path", "/small")},
		{name: "pseudo-field twice", fields: get(":path", "/small")},
		{name: "unknown pseudo-field", fields: get(":unknown", "x")},
		{name: "pseudo-field of answers", fields: get(":status", "200")},
		{name: "protocol without CONNECT", fields: get(":protocol", "websocket")},
		{name: "content-length twice", fields: post("content-length", "3", "content-length", "3"), body: []string{"abc"}},
		{name: "two content-lengths", fields: post("content-length", "3", "content-length", "4"), body: []string{"abc"}},
		{name: "content-length of a list", fields: post("content-length", "3, 3"), body: []string{"abc"}},
		{name: "content-length with a sign", fields: post("content-length", "+3"), body: []string{"abc"}},
		{name: "content-length and no body", fields: post("content-length", "3")},
		{name: "less than content-length", fields: post("content-length", "5"), body: []string{"abc"}},
		{name: "less, in pieces", fields: post("content-length", "5"), body: []string{"ab", "", "c"}},
		{name: "more than content-length", fields: post("content-length", "2"), body: []string{"abc"}},
		{name: "more, in the end", fields: post("content-length", "5"), body: []string{"ab", "cdef"}},
		{name: "more, without an end", fields: post("content-length", "2"), body: []string{"abc"}, open: true},
		{name: "less, and a trailer", fields: post("content-length", "5"), body: []string{"abc"}, trailer: []string{"x-sum", "1"}},
		{name: "pseudo-field in the trailer", fields: post(), body: []string{"abc"}, trailer: []string{":path", "/"}},
		{name: "connection in the trailer", fields: post(), body: []string{"abc"}, trailer: []string{"connection", "close"}},
	}
	for _, name := range []string{"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"} {
		all = append(all, malformed{name: name, fields: get(name, "close")})
	}
	for _, name := range []string{"te", "transfer-encoding", "content-length", "host", "X-Upper", "a b"} {
		all = append(all, malformed{name: name + " in the trailer", fields: post(), body: []string{"abc"}, trailer: []string{name, "1"}})
	}
	for _, value := range []string{"a\rb", "a\nb", "a\x00b", "a\r\nx-b: c", " a", "a\t", "a\x7f"} {
		all = append(all, malformed{name: fmt.Sprintf("value %q", value), fields: get("x-a", value)})
	}
	for _, name := range []string{"", "a b", "a:b", "a\x00", "a\r\nb", "a(b", "\xc3\xa4"} {
		all = append(all, malformed{name: fmt.Sprintf("name %q", name), fields: get(name, "v")})
	}
	return all
}

func (m *malformed) send(c *rawH2, id uint32) {
	_ = c.headers(id, len(m.body) == 0 && m.trailer == nil, m.fields...)
	for i, piece := range m.body {
		_ = c.framer.WriteData(id, m.trailer == nil && !m.open && i == len(m.body)-1, []byte(piece))
	}
	if m.trailer != nil {
		_ = c.headers(id, true, m.trailer...)
	}
}

// TestHTTP2Malformed sends one after the other on one connection. Of those whose fault comes late an upstream sees the start, and
// never the end.
func TestHTTP2Malformed(t *testing.T) {
	u := newEchoUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	c, id := dialRawH2(t, g.addr), uint32(1)
	for _, m := range malformedRequests() {
		m.send(c, id)
		got, err := c.outcome(id)
		if err != nil {
			t.Fatalf("%s: the connection ended: %v", m.name, err)
		}
		if got != "reset PROTOCOL_ERROR" && got[0] != '4' {
			t.Errorf("%s: %s", m.name, got)
		}
		_ = c.get(id+2, "/after")
		if got, err := c.outcome(id + 2); err != nil || !strings.HasPrefix(got, "200 ") {
			t.Fatalf("after %s: %s, %v", m.name, got, err)
		}
		if served := u.take(); len(served) != 1 || !strings.Contains(served[0], "/after") {
			t.Errorf("%s: the upstream has seen %q", m.name, served)
		}
		id += 4
	}
}

// parity is a request that both protocols can say.
type parity struct {
	method, path, host string
	fields             []string
	body               string
}

// h1 is what HTTP/1.1 sends.
func (p *parity) h1() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", p.method, p.path)
	if p.host != "-" {
		fmt.Fprintf(&b, "Host: %s\r\n", p.host)
	}
	for i := 0; i < len(p.fields); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", p.fields[i], p.fields[i+1])
	}
	return append(b.Bytes(), "\r\n"+p.body...)
}

// h2 sends the request in HTTP/2.
func (p *parity) h2(c *rawH2) {
	fields := []string{":method", p.method}
	if p.method != "CONNECT" { // which has neither
		fields = append(fields, ":scheme", "http", ":path", p.path)
	}
	if p.host != "-" {
		fields = append(fields, ":authority", p.host)
	}
	_ = c.headers(1, p.body == "", append(fields, p.fields...)...)
	if p.body != "" {
		_ = c.framer.WriteData(1, true, []byte(p.body))
	}
}

func parities() []parity {
	long := strings.Repeat("v", 40<<10)
	var many []string
	for i := range 120 {
		many = append(many, fmt.Sprint("x-", i), "v")
	}
	all := []parity{
		{method: "POST", path: "/", host: "a", fields: []string{"content-length", "3"}, body: "abc"},
		{method: "POST", path: "/", host: "a", fields: []string{"content-length", "x"}, body: "abc"},
		{method: "POST", path: "/", host: "a", fields: []string{"content-length", "3", "content-length", "3"}, body: "abc"},
		{method: "POST", path: "/", host: "a", fields: []string{"content-length", "0"}},
		{method: "GET", path: "/", host: "a", fields: []string{"x-long", long}},
		{method: "GET", path: "/" + long, host: "a"},
		{method: "GET", path: "/", host: "a", fields: many},
		{method: "GET", path: "/", host: "a", fields: many[:190]},
		{method: "GET", path: "/", host: "a", fields: []string{"cookie", "a=b; c=d"}},
		{method: "OPTIONS", path: "*", host: "a"},
		{method: "CONNECT", path: "a:443", host: "a:443"},
	}
	for _, method := range []string{"GET", "HEAD", "DELETE", "TRACE", "PROPFIND", "get", "M!", "G(T", "G\x7fT"} {
		all = append(all, parity{method: method, path: "/", host: "a"})
	}
	for _, path := range []string{"/a", "/a/../b", "/a//b", "/%41%2f", "/%zz", "/%00", "/a?b=c?d", "/a?", "/a\\b", "/a\"b", "/a\x80b", "/..", "/a/./b",
		"/a%2e%2e/b", "/|", "/{}", "/a;b=c", "//a", "/?/../", "/\x01"} {
		all = append(all, parity{method: "GET", path: path, host: "a"})
	}
	for _, host := range []string{"-", "", "a:80", "a:", "a:x", "a:99999", "[::1]", "[::1", "u@a", "a/b", "a,b", "a b", "A.Example", "a%41", "a_b", "a..b", "a."} {
		all = append(all, parity{method: "GET", path: "/", host: host})
	}
	for _, field := range []string{"x-a|", "x-a|v w", "x-a|\x80\xff", "x-a|a\x01b", "x_a|v", "x-forwarded-for|1.2.3.4", "x_forwarded_for|1.2.3.4",
		"content_length|3", "transfer_encoding|chunked", "expect|100-continue", "expect|x", "te|trailers", "x.a|v", "x(a|v", "authorization|b",
		"proxy-authorization|b", "accept|*/*", "range|bytes=0-1", "forwarded|for=1.2.3.4", "via|1.0 x", "x-request-id|mine", "trailer|x-sum"} {
		name, value, _ := strings.Cut(field, "|")
		all = append(all, parity{method: "GET", path: "/", host: "a", fields: []string{name, value}})
	}
	return all
}

// TestVerdictsAreTheSame sends the same request in both protocols: it is refused, or the upstream gets the same.
func TestVerdictsAreTheSame(t *testing.T) {
	u := newEchoUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h1, h2c]"))
	passed := 0
	for _, p := range parities() {
		name := fmt.Sprintf("%.40q %.40q %.40q %.80q %q", p.method, p.path, p.host, p.fields, p.body)
		one := verdict1(t, g.addr, &p)
		seen1 := u.take()
		two := verdict2(t, g.addr, &p)
		seen2 := u.take()
		if one != two {
			t.Errorf("%s: HTTP/1.1 %s, HTTP/2 %s", name, one, two)
		}
		if !slices.Equal(seen1, seen2) {
			t.Errorf("%s: the upstream gets\n%q in HTTP/1.1,\n%q in HTTP/2", name, seen1, seen2)
		}
		if (one == "200") != (len(seen1) == 1) {
			t.Errorf("%s: %s, and the upstream has seen %q", name, one, seen1)
		}
		passed += len(seen1)
	}
	if passed < 20 {
		t.Errorf("only %d requests have passed", passed)
	}
}

func verdict1(t *testing.T, addr string, p *parity) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = conn.Write(p.h1())
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: p.method})
		if err != nil {
			t.Fatalf("%s %.40s: %v", p.method, p.path, err)
		}
		if res.StatusCode >= 200 {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			return fmt.Sprint(res.StatusCode)
		}
	}
}

// verdict2 tells the stream error of a malformed message as 400, which it is in HTTP/1.1.
func verdict2(t *testing.T, addr string, p *parity) string {
	t.Helper()
	c := dialRawH2(t, addr)
	defer func() { _ = c.conn.Close() }()
	p.h2(c)
	got, err := c.outcome(1)
	if err != nil {
		t.Fatalf("%s %.40s: %v", p.method, p.path, err)
	}
	if got == "reset "+xhttp2.ErrCodeProtocol.String() {
		return "400"
	}
	status, _, _ := strings.Cut(got, " ")
	return status
}
