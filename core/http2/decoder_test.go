package http2

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"golang.org/x/net/http2/hpack"
)

// peer encodes the blocks of a connection as x/net does.
type peer struct {
	buf bytes.Buffer
	enc *hpack.Encoder
}

func newPeer() *peer {
	p := &peer{}
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

// block encodes fields, "name: value" each.
func (p *peer) block(fields ...string) []byte {
	p.buf.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f[1:], ": ")
		_ = p.enc.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value})
	}
	return bytes.Clone(p.buf.Bytes())
}

// block encodes the first block of a connection.
func block(fields ...string) []byte { return newPeer().block(fields...) }

// get gives the pseudo-fields that most cases need, and more fields.
func get(fields ...string) []string {
	return append([]string{":method: GET", ":scheme: https", ":authority: a", ":path: /"}, fields...)
}

func TestRequestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		detail fault
	}{
		{"upper-case name", get("X-Y: a"), faultUpper},
		{"space in a name", get("x y: a"), faultName},
		{"colon in a name", get("x:y: a"), faultName},
		{"NUL in a name", get("x\x00: a"), faultName},
		{"obs-text in a name", get("x\xe9: a"), faultName},
		{"CRLF in a name", get("x\r\ny: a"), faultName},
		{"CRLF in a value", get("x: a\r\nhost: b"), faultValue},
		{"LF in a value", get("x: a\nb"), faultValue},
		{"NUL in a value", get("x: a\x00b"), faultValue},
		{"DEL in a value", get("x: a\x7fb"), faultValue},
		{"space before a value", get("x:  a"), faultBlank},
		{"tab after a value", get("x: a\t"), faultBlank},
		{"connection", get("connection: close"), faultConnection},
		{"keep-alive", get("keep-alive: 5"), faultConnection},
		{"proxy-connection", get("proxy-connection: close"), faultConnection},
		{"transfer-encoding", get("transfer-encoding: chunked"), faultConnection},
		{"upgrade", get("upgrade: websocket"), faultConnection},
		{"te", get("te: gzip"), faultTE},
		{"te with more than trailers", get("te: trailers, gzip"), faultTE},
		{"look-alike of transfer-encoding", get("transfer_encoding: chunked"), faultAlike},
		{"look-alike of content-length", get("content.length: 5"), faultAlike},

		{"no field at all", nil, faultPseudoMissing},
		{"no method", []string{":scheme: https", ":authority: a", ":path: /"}, faultPseudoMissing},
		{"no scheme", []string{":method: GET", ":authority: a", ":path: /"}, faultPseudoMissing},
		{"no path", []string{":method: GET", ":authority: a", ":scheme: https"}, faultPseudoMissing},
		{"pseudo-field after a field", []string{":method: GET", ":scheme: https", ":path: /", "x: y", ":authority: a"}, faultPseudoLate},
		{"pseudo-field after a cookie", []string{":method: GET", ":scheme: https", ":path: /", "cookie: y", ":authority: a"}, faultPseudoLate},
		{"pseudo-field after te", []string{":method: GET", ":scheme: https", ":path: /", "te: trailers", ":authority: a"}, faultPseudoLate},
		{"two methods", get(":method: GET"), faultPseudoTwice},
		{"two schemes", get(":scheme: https"), faultPseudoTwice},
		{"two paths", get(":path: /"), faultPseudoTwice},
		{"two authorities", get(":authority: a"), faultPseudoTwice},
		{"unknown pseudo-field", get(":x: y"), faultPseudo},
		{"upper-case pseudo-field", get(":Path: y"), faultPseudo},
		{"bare colon", get(":: y"), faultPseudo},
		{"status in a request", get(":status: 200"), faultPseudo},
		{"protocol without CONNECT", get(":protocol: websocket"), faultProtocolPlace},
		{"empty method", []string{":method: ", ":scheme: https", ":authority: a", ":path: /"}, faultMethod},
		{"method with a space", []string{":method: GET /x", ":scheme: https", ":authority: a", ":path: /"}, faultMethod},
		{"other scheme", []string{":method: GET", ":scheme: ftp", ":authority: a", ":path: /"}, faultScheme},
		{"empty path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: "}, faultTargetForm},
		{"relative path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: x"}, faultTargetForm},
		{"URI as path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: http://b/"}, faultTargetForm},
		{"space in the path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: /a b"}, faultTarget},
		{"CRLF in the path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: / HTTP/1.1\r\nx: y"}, faultTarget},
		{"obs-text in the path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: /\xc3\xa9"}, faultTarget},
		{"fragment in the path", []string{":method: GET", ":scheme: https", ":authority: a", ":path: /a#b"}, faultFragment},
		{"asterisk with GET", []string{":method: GET", ":scheme: https", ":authority: a", ":path: *"}, faultTargetForm},
		{"more than an asterisk", []string{":method: OPTIONS", ":scheme: https", ":authority: a", ":path: *a"}, faultTargetForm},
		{"empty authority", []string{":method: GET", ":scheme: https", ":authority: ", ":path: /"}, faultAuthority},
		{"user information", []string{":method: GET", ":scheme: https", ":authority: u@a", ":path: /"}, faultAuthority},
		{"path in the authority", []string{":method: GET", ":scheme: https", ":authority: a/b", ":path: /"}, faultAuthority},
		{"space in the authority", []string{":method: GET", ":scheme: https", ":authority: a b", ":path: /"}, faultAuthority},
		{"CRLF in the authority", []string{":method: GET", ":scheme: https", ":authority: a\r\nx: y", ":path: /"}, faultAuthority},
		{"no authority", []string{":method: GET", ":scheme: https", ":path: /"}, faultNoHost},
		{"no authority, asterisk", []string{":method: OPTIONS", ":scheme: https", ":path: *"}, faultNoHost},
		{"empty host", []string{":method: GET", ":scheme: https", ":path: /", "host: "}, faultHost},
		{"invalid host", []string{":method: GET", ":scheme: https", ":path: /", "host: u@a"}, faultHost},
		{"other host", get("host: b"), faultHostDisagrees},
		{"empty host beside the authority", get("host: "), faultHostDisagrees},
		{"other port", get("host: a:80"), faultHostDisagrees},
		{"several host", []string{":method: GET", ":scheme: https", ":path: /", "host: a", "host: a"}, faultHosts},
		{"several host beside the authority", get("host: a", "host: a"), faultHosts},
		{"two content-length", get("content-length: 5", "content-length: 5"), faultLengths},
		{"list of content-length", get("content-length: 5, 5"), faultLength},
		{"signed content-length", get("content-length: +5"), faultLength},
		{"empty content-length", get("content-length: "), faultLength},
		{"overflowing content-length", get("content-length: 18446744073709551621"), faultLength},

		{"CONNECT with a path", []string{":method: CONNECT", ":authority: a:1", ":path: /"}, faultConnect},
		{"CONNECT with a scheme", []string{":method: CONNECT", ":authority: a:1", ":scheme: https"}, faultConnect},
		{"CONNECT without a port", []string{":method: CONNECT", ":authority: a"}, faultConnect},
		{"CONNECT without an authority", []string{":method: CONNECT", "host: a:1"}, faultConnect},
		{"CONNECT with a body", []string{":method: CONNECT", ":authority: a:1", "content-length: 5"}, faultConnectBody},
		{"extended CONNECT without a path", []string{":method: CONNECT", ":protocol: websocket", ":authority: a", ":scheme: https"}, faultPseudoMissing},
		{"extended CONNECT without an authority", []string{":method: CONNECT", ":protocol: websocket", ":path: /", ":scheme: https", "host: a"}, faultPseudoMissing},
		{"extended CONNECT with a body", []string{":method: CONNECT", ":protocol: websocket", ":path: /", ":scheme: https", ":authority: a", "content-length: 5"}, faultConnectBody},
		{"extended CONNECT for requests", []string{":method: CONNECT", ":protocol: h2c", ":path: /", ":scheme: https", ":authority: a"}, faultProtocol},
		{"extended CONNECT for nothing", []string{":method: CONNECT", ":protocol: a b", ":path: /", ":scheme: https", ":authority: a"}, faultProtocolName},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, p := NewDecoder(4096), newPeer()
			var m core.Message
			for range 2 { // as a literal, then as an index
				m.Reset()
				_, err := d.DecodeRequest(&m, p.block(c.fields...), &wide)
				if refused := (*core.Error)(nil); !errors.As(err, &refused) || refused != requestErrors[c.detail] {
					t.Errorf("%v, want %q", err, faultDetails[c.detail])
				}
				if m.Count() != 0 || m.Method != 0 {
					t.Error("the message was not reset")
				}
			}
			m.Reset() // the table is in step and the next request is read
			if _, err := d.DecodeRequest(&m, p.block(get("x-new: 1")...), &wide); err != nil || string(m.AppendLines(nil)) != "host: a\r\nx-new: 1\r\n" {
				t.Errorf("the next request: %q, %v", m.AppendLines(nil), err)
			}
		})
	}
}

// describe writes down all that was found.
func describe(m *core.Message) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s(%d) %s host=%s", m.MethodBytes(), m.Method, m.Bytes(m.Target), m.Host())
	for _, f := range []struct {
		name string
		set  bool
	}{{"chunked", m.Chunked}, {"close", m.Close || m.KeepAlive || m.HTTP10}, {"upgrade", m.Upgrade}, {"expect", m.Expect100}} {
		if f.set {
			s.WriteString(" " + f.name)
		}
	}
	if m.ContentLength >= 0 {
		fmt.Fprintf(&s, " length=%d", m.ContentLength)
	}
	if m.Protocol != nil {
		fmt.Fprintf(&s, " protocol=%s", m.Protocol)
	}
	m.All(func(id core.FieldID, name, value []byte) bool {
		if id != core.LookupField(name) {
			s.WriteString(" WRONG ID")
		}
		fmt.Fprintf(&s, " [%s=%s]", name, value)
		return true
	})
	return s.String()
}

func TestRequestAccepted(t *testing.T) {
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{get(), "GET(1) / host=a [host=a]"},
		{[]string{":path: /x?y", ":authority: a:8", ":scheme: http", ":method: PURGE"}, "PURGE(0) /x?y host=a:8 [host=a:8]"},
		{[]string{":path: /", ":scheme: HTTP", ":method: GET", "x: y", "host: a"}, "GET(1) / host=a [x=y] [host=a]"},
		{get("host: A:443", "x: 1"), "GET(1) / host=a [host=a] [x=1]"},
		{get("x: a", "x: b", "x: "), "GET(1) / host=a [host=a] [x=a] [x=b] [x=]"},
		{get("x: \x80\xff\tb c"), "GET(1) / host=a [host=a] [x=\x80\xff\tb c]"},
		{get("!#$%&'*+.^_`|~: 1"), "GET(1) / host=a [host=a] [!#$%&'*+.^_`|~=1]"},
		{get("cookie: a=b", "x: y", "cookie: ", "cookie: c=d"), "GET(1) / host=a [host=a] [x=y] [cookie=a=b; c=d]"},
		{get("cookie: ", "cookie: c=d"), "GET(1) / host=a [host=a] [cookie=c=d]"},
		{get("cookie: "), "GET(1) / host=a [host=a] [cookie=]"},
		{get("te: trailers", "proxy-authorization: x", "proxy-authenticate: x"), "GET(1) / host=a [host=a]"},
		{get("x_forwarded_for: 1", "x-real_ip: 2", "x_other: 3"), "GET(1) / host=a [host=a] [x_other=3]"},
		{get("content-length: 007"), "GET(1) / host=a length=7 [host=a] [content-length=007]"},
		{get("expect: 100-Continue"), "GET(1) / host=a expect [host=a] [expect=100-Continue]"},
		{get("expect: 100-continue", "expect: more"), "GET(1) / host=a [host=a] [expect=100-continue] [expect=more]"},
		{[]string{":method: OPTIONS", ":path: *", ":scheme: https", ":authority: a"}, "OPTIONS(7) * host=a [host=a]"},
		{[]string{":method: OPTIONS", ":path: *", ":scheme: https", "host: "}, "OPTIONS(7) * host= [host=]"},
		{[]string{":method: CONNECT", ":authority: [::1]:443"}, "CONNECT(6) [::1]:443 host=[::1]:443 [host=[::1]:443]"},
		{[]string{":method: CONNECT", ":authority: a:443", "host: a"}, "CONNECT(6) a:443 host=a:443 [host=a:443]"},
		{[]string{":method: CONNECT", ":protocol: websocket", ":path: /chat", ":scheme: https", ":authority: a", "sec-websocket-version: 13"},
			"GET(1) /chat host=a upgrade protocol=websocket [host=a] [sec-websocket-version=13]"},
	} {
		d, p := NewDecoder(4096), newPeer()
		var m core.Message
		for range 3 {
			m.Reset()
			scheme, err := d.DecodeRequest(&m, p.block(c.fields...), &wide)
			if got := describe(&m); err != nil || got != c.want {
				t.Errorf("%q: %v\n got %s\nwant %s", c.fields, err, got, c.want)
			}
			if connect := m.Method == core.MethodConnect; connect != (scheme == "") || !connect && scheme != "http" && scheme != "https" {
				t.Errorf("%q: scheme %q", c.fields, scheme)
			}
		}
	}
}

func TestResponses(t *testing.T) {
	for _, c := range []struct {
		fields []string
		fault  fault
		want   string
	}{
		{[]string{":status: 200", "content-length: 5", "host: x", "cookie: a", "cookie: b", "x_forwarded_for: 1", "transfer_encoding: x"}, 0,
			"200 length=5 [content-length=5] [host=x] [cookie=a] [cookie=b] [x_forwarded_for=1] [transfer_encoding=x]"},
		{[]string{":status: 204", "content-length: 0"}, 0, "204"},
		{[]string{":status: 103", "link: x", "te: trailers", "proxy-authenticate: x"}, 0, "103 [link=x]"},
		{[]string{":status: 304", "content-length: 5"}, 0, "304 length=5 [content-length=5]"},
		{[]string{":status: 204", "content-length: 1"}, faultNoContent, ""},
		{[]string{":status: 100", "content-length: 1"}, faultNoContent, ""},
		{[]string{":status: 101"}, faultSwitching, ""},
		{[]string{"x: y"}, faultPseudoMissing, ""},
		{[]string{":status: 200", ":status: 200"}, faultPseudoTwice, ""},
		{[]string{"x: y", ":status: 200"}, faultPseudoLate, ""},
		{[]string{":status: 200", ":path: /"}, faultPseudo, ""},
		{[]string{":status: 2000"}, faultStatus, ""},
		{[]string{":status: 600"}, faultStatus, ""},
		{[]string{":status: 099"}, faultStatus, ""},
		{[]string{":status: 20x"}, faultStatus, ""},
		{[]string{":status: 200", "connection: close"}, faultConnection, ""},
		{[]string{":status: 200", "X: close"}, faultUpper, ""},
		{[]string{":status: 200", "x: a\nb"}, faultValue, ""},
		{[]string{":status: 200", "content-length: 1", "content-length: 1"}, faultLengths, ""},
	} {
		d, p := NewDecoder(4096), newPeer()
		for range 2 {
			var m core.Message
			m.Reset()
			err := d.DecodeResponse(&m, p.block(c.fields...), &wide)
			if c.fault != faultNone {
				if err != error(responseErrors[c.fault]) {
					t.Errorf("%q: %v, want %s", c.fields, err, faultDetails[c.fault])
				}
				continue
			}
			got := fmt.Sprint(m.Status, strings.TrimPrefix(describe(&m), "(0)  host="))
			if err != nil || got != c.want {
				t.Errorf("%q: %v\n got %s\nwant %s", c.fields, err, got, c.want)
			}
		}
	}
}

func TestTrailers(t *testing.T) {
	for _, c := range []struct {
		fields []string
		fault  fault
		want   string
	}{
		{[]string{"grpc-status: 0", "grpc-message: x", "etag: y", "content-digest: z"}, 0, "grpc-status: 0|grpc-message: x|etag: y|content-digest: z|"},
		{[]string{"x: y", "authorization: z", "via: z", "if-match: z", "content-range: z", "cookie: z", "x_forwarded_for: z", "set_cookie: z", "pragma: z"}, 0, "x: y|"},
		{nil, 0, ""},
		{[]string{":status: 200"}, faultTrailerPseudo, ""},
		{[]string{":path: /"}, faultTrailerPseudo, ""},
		{[]string{":x: /"}, faultTrailerPseudo, ""},
		{[]string{"te: trailers"}, faultTrailer, ""},
		{[]string{"transfer-encoding: chunked"}, faultTrailer, ""},
		{[]string{"content-length: 5"}, faultTrailer, ""},
		{[]string{"content_length: 5"}, faultTrailer, ""},
		{[]string{"host: a"}, faultTrailer, ""},
		{[]string{"connection: a"}, faultTrailer, ""},
		{[]string{"X: a"}, faultUpper, ""},
		{[]string{"x y: a"}, faultName, ""},
		{[]string{"x: a\r\nb"}, faultValue, ""},
		{[]string{"x: " + strings.Repeat("a", 40000)}, faultTooLarge, ""},
		{strings.Split(strings.Repeat("x: y|", 100)+"x: y", "|"), faultTooMany, ""},
	} {
		d, p := NewDecoder(4096), newPeer()
		for range 2 {
			got, err := d.DecodeTrailer([]byte("before|"), p.block(c.fields...), &wide)
			if c.fault != faultNone {
				if err != error(requestErrors[c.fault]) || string(got) != "before|" {
					t.Errorf("%.100q: %q, %v, want %s", c.fields, got, err, faultDetails[c.fault])
				}
				continue
			}
			if s := strings.ReplaceAll(string(got), "\r\n", "|"); err != nil || s != "before|"+c.want {
				t.Errorf("%q: %v\n got %s\nwant %s", c.fields, err, s, c.want)
			}
		}
	}
}

func TestBlocksThatEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     *ConnError
	}{
		{"index 0", "\x80", errIndex},
		{"index of nothing", "\xbe", errIndex},
		{"index past the table", "\xff\x80\x01", errIndex},
		{"name of nothing", "\x7e\x01a", errIndex},
		{"name of nothing, not indexed", "\x0f\x2f\x01a", errIndex},
		{"integer that breaks off", "\xff", errInteger},
		{"integer that goes on", "\xff\x80\x80\x80\x80\x80\x00", errInteger},
		{"name that breaks off", "\x40\x05abc", errString},
		{"no value", "\x41", errString},
		{"value that breaks off", "\x41\x05abc", errString},
		{"length that breaks off", "\x41\x7f", errString},
		{"end of string in Huffman", "\x41\x84\xff\xff\xff\xff", errString},
		{"long padding", "\x41\x82\x07\xff", errString},
		{"table size that breaks off", "\x3f", errInteger},
		{"table size that goes on", "\x3f\xff\xff\xff\xff\xff\x00", errInteger},
		{"table too large", "\x3f\xe2\x1f", errTableSize},
		{"table size after a field", "\x82\x3f\xe1\x1f", errLateResize},
		{"table size after a literal", "\x00\x01a\x01b\x20", errLateResize},
	} {
		var m core.Message
		m.Reset()
		_, err := NewDecoder(4096).DecodeRequest(&m, []byte(c.in), &wide)
		if err != error(c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	d := NewDecoder(4096)
	if got, err := d.DecodeTrailer(nil, []byte("\x20\x3f\xe1\x1f\x40\x01a\x01b\xbe"), &wide); err != nil || string(got) != "a: b\r\na: b\r\n" {
		t.Errorf("two sizes, the last 4096: %q, %v", got, err)
	}
	if got, err := d.DecodeTrailer(nil, []byte("\x20\x40\x01a\x01b"), &wide); err != nil || d.table.count() != 0 {
		t.Errorf("a field larger than the table: %q, %v, %d entries", got, err, d.table.count())
	}
}

// A block that decodes to far more than is allowed costs what it has on the wire, and ends the connection; one that is
// somewhat too large is refused and leaves the table in step.
func TestBombs(t *testing.T) {
	lim := Limits{HeaderBytes: 8 << 10, Headers: 50}
	long := block(append(get(), "x: "+strings.Repeat("a", 3000))...)
	index := []byte{0xbe}
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing more", nil, nil},
		{"one more", bytes.Repeat(index, 1), nil},
		{"two more", bytes.Repeat(index, 2), requestErrors[faultTooLarge]},
		{"twenty more", bytes.Repeat(index, 20), requestErrors[faultTooLarge]},
		{"thirty more", bytes.Repeat(index, 30), errBomb},
		{"sixty thousand more", bytes.Repeat(index, 60000), errBomb},
		{"many small ones", append(block("y: z"), bytes.Repeat(index, 100)...), requestErrors[faultTooMany]},
		{"very many small ones", append(block("y: z"), bytes.Repeat(index, 1000)...), errBomb},
		{"very many empty crumbs", append(block("cookie: "), bytes.Repeat([]byte{0x80 | 32}, 60000)...), errBomb},
		{"very many crumbs", append(block("cookie: a"), bytes.Repeat(index, 60000)...), errBomb},
		{"a long path", block(":path: /" + strings.Repeat("a", 9000)), requestErrors[faultPseudoLate]},
	} {
		d := NewDecoder(4096)
		var m core.Message
		m.Reset()
		if _, err := d.DecodeRequest(&m, append(bytes.Clone(long), c.in...), &lim); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if used := cap(d.section.head) + cap(d.section.cookie) + cap(d.section.literal) + cap(d.table.bytes); used > 96<<10 {
			t.Errorf("%s: %d bytes of memory", c.name, used)
		}
	}
	var m core.Message
	m.Reset()
	_, err := NewDecoder(0).DecodeRequest(&m, block(":method: GET", ":path: /"+strings.Repeat("a", 9000)), &lim)
	if err != error(requestErrors[faultTargetTooLong]) {
		t.Errorf("long path: %v", err)
	}
}

func TestDecoderAllocatesNothing(t *testing.T) {
	d := NewDecoder(4096)
	d.Use(&Scratch{})
	var m core.Message
	blocks := browserBlocks(8)
	decode := func() {
		for _, b := range blocks[1:] {
			m.Reset()
			if _, err := d.DecodeRequest(&m, b, &wide); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.Reset()
	if _, err := d.DecodeRequest(&m, blocks[0], &wide); err != nil {
		t.Fatal(err)
	}
	decode()
	if n := testing.AllocsPerRun(100, decode); n != 0 {
		t.Errorf("%v allocations", n)
	}
	churn := func() { // fields that enter the table and push others out
		for i := range 26 {
			in := []byte("\x88\x40\x0bx-request-id\x20" + strings.Repeat(string(rune('a'+i)), 32))
			in[2] = 12
			m.Reset()
			if err := d.DecodeResponse(&m, in, &wide); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 20 {
		churn()
	}
	if n := testing.AllocsPerRun(100, churn); n > 4*26 { // those of the test's own strings
		t.Errorf("%v allocations with a table that changes", n)
	}
}
