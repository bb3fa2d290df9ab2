package http2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"golang.org/x/net/http2/hpack"
)

// response makes a message of fields, "name: value" each.
func response(status int, fields ...string) *core.Message {
	m := &core.Message{}
	m.Reset()
	m.Status = status
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		m.AddName(name, []byte(value))
	}
	return m
}

// readBack gives the fields of a block as x/net reads them.
func readBack(t testing.TB, d *hpack.Decoder, block []byte) string {
	t.Helper()
	fields, err := d.DecodeFull(block)
	if err != nil {
		t.Fatalf("%x: %v", block, err)
	}
	var s strings.Builder
	for _, f := range fields {
		mark := ""
		if f.Sensitive {
			mark = "!"
		}
		fmt.Fprintf(&s, "%s%s: %s|", mark, f.Name, f.Value)
	}
	return s.String()
}

func TestAppendResponse(t *testing.T) {
	e, d := NewEncoder(), hpack.NewDecoder(4096, nil)
	for _, c := range []struct {
		m    *core.Message
		want string
	}{
		{response(200, "Server: x", "X-Powered-By: y", "Set-Cookie: a=b", "set-cookie: c", "Last-Modified: z"),
			":status: 200|server: x|x-powered-by: y|!set-cookie: a=b|!set-cookie: c|last-modified: z|"},
		{response(302, "Connection: close", "Keep-Alive: 5", "Proxy-Connection: a", "Transfer-Encoding: chunked", "Upgrade: h2c", "TE: x", "Location: /", "Empty: "),
			":status: 302|location: /|empty: |"},
		{response(103), ":status: 103|"},
		{response(599, strings.Repeat("N", 200)+": v", "V: "+strings.Repeat("v", 5000)),
			":status: 599|" + strings.Repeat("n", 200) + ": v|v: " + strings.Repeat("v", 5000) + "|"},
	} {
		for range 4 {
			if got := readBack(t, d, e.AppendResponse(nil, c.m)); got != c.want {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		}
	}
	m := response(200)
	m.ContentLength = 12345
	if got := readBack(t, d, e.AppendResponse(nil, m)); got != ":status: 200|content-length: 12345|" {
		t.Error(got)
	}
	m.Status = 204
	if got := readBack(t, d, e.AppendResponse(nil, m)); got != ":status: 204|" {
		t.Error(got)
	}
	m = response(200, "content-length: 5")
	m.ContentLength = 5
	m.Add(core.FieldServer, []byte("x"))
	m.Remove(core.FieldServer)
	if got := readBack(t, d, e.AppendResponse(nil, m)); got != ":status: 200|content-length: 5|" {
		t.Error(got)
	}
}

func TestAppendRequest(t *testing.T) {
	e, d := NewEncoder(), hpack.NewDecoder(4096, nil)
	request := func(method, path string, edit func(*core.Message)) *core.Message {
		m := response(0, "X: y")
		head := []byte(method + path)
		m.MethodText, m.Method = core.Span{End: uint32(len(method))}, core.LookupMethod([]byte(method))
		m.Target = core.Span{Start: uint32(len(method)), End: uint32(len(head))}
		m.Keep(head)
		m.Add(core.FieldHost, []byte("shop"))
		if m.Method != core.MethodConnect {
			if err := m.NormalizeTarget(false); err != nil {
				t.Fatal(err)
			}
		}
		if edit != nil {
			edit(m)
		}
		return m
	}
	for _, c := range []struct {
		m               *core.Message
		authority, path string
		want            string
	}{
		{request("GET", "/a?b", nil), "", "", ":method: GET|:scheme: http|:authority: shop|:path: /a?b|x: y|te: trailers|"},
		{request("GET", "/?", nil), "", "", ":method: GET|:scheme: http|:authority: shop|:path: /?|x: y|te: trailers|"},
		{request("POST", "/", func(m *core.Message) { m.ContentLength = 7 }), "other:8", "/z", ":method: POST|:scheme: http|:authority: other:8|:path: /z|x: y|content-length: 7|te: trailers|"},
		{request("PURGE", "/", func(m *core.Message) { m.Set(core.FieldHost, []byte("new")) }), "", "/", ":method: PURGE|:scheme: http|:authority: new|:path: /|x: y|te: trailers|"},
		{request("GET", "/", func(m *core.Message) {
			m.Add(core.FieldAuthorization, []byte("s"))
			m.Add(core.FieldCookie, []byte("c"))
			m.Add(core.FieldTE, []byte("trailers"))
			m.Add(core.FieldConnection, []byte("x"))
		}), "", "", ":method: GET|:scheme: http|:authority: shop|:path: /|x: y|!authorization: s|!cookie: c|te: trailers|"},
		{request("GET", "/chat", func(m *core.Message) { m.Protocol = []byte("websocket") }), "", "",
			":method: CONNECT|:protocol: websocket|:scheme: http|:authority: shop|:path: /chat|x: y|te: trailers|"},
		{request("GET", "/chat", func(m *core.Message) {
			m.Protocol, m.ContentLength = []byte("websocket"), 0
			m.Add(core.FieldContentLength, []byte("0"))
		}), "", "", ":method: CONNECT|:protocol: websocket|:scheme: http|:authority: shop|:path: /chat|x: y|te: trailers|"},
		{request("CONNECT", "a:1", nil), "a:1", "", ":method: CONNECT|:authority: a:1|x: y|"},
		{request("CONNECT", "shop:1", func(m *core.Message) { // where the tunnel leads stays, whatever Host has become
			m.Authority, m.ContentLength = m.Target, 0
			m.Add(core.FieldContentLength, []byte("0"))
			m.Set(core.FieldHost, []byte("new"))
		}), "", "", ":method: CONNECT|:authority: shop:1|x: y|"},
	} {
		var authority, path []byte
		if c.authority != "" {
			authority = []byte(c.authority)
		}
		if c.path != "" {
			path = []byte(c.path)
		}
		for range 4 {
			if got := readBack(t, d, e.AppendRequest(nil, c.m, "http", authority, path)); got != c.want {
				t.Errorf(" got %s\nwant %s", got, c.want)
			}
		}
	}
	if got := readBack(t, d, e.AppendRequest(nil, request("GET", "/", nil), "https", nil, nil)); !strings.HasPrefix(got, ":method: GET|:scheme: https|:authority: shop|:path: /|") {
		t.Error(got)
	}
}

// Of what one client says, another learns nothing by the size of his own requests on the same connection.
func TestRequestsDoNotShareSecrets(t *testing.T) {
	e := NewEncoder()
	for _, f := range []string{"X-Api-Key: 0123456789", "Authorization: Basic x", "Cookie: a=b", "Referer: /secret", "X-Csrf: 1"} {
		m := response(0, f, "Host: a")
		first := len(e.AppendRequest(nil, m, "https", nil, []byte("/")))
		for range 5 {
			e.AppendRequest(nil, m, "https", nil, []byte("/"))
		}
		if name := strings.ToLower(f[:strings.Index(f, ":")]); strings.Contains(dump(&e.table), name) {
			t.Errorf("%q entered the table, first block %d bytes", f, first)
		}
	}
	// Two fields whose hashes collide keep each other out, which is rare: one of these has none.
	var got []byte
	for i := range 5 {
		e = NewEncoder()
		m := response(0, fmt.Sprintf("User-Agent: curl/%d", i), fmt.Sprintf("Accept-Encoding: gzip;q=0.%d", i), "Host: a", fmt.Sprintf("Accept: */%d", i))
		for range 3 {
			e.AppendRequest(nil, m, "https", nil, []byte("/"))
		}
		if got = e.AppendRequest(nil, m, "https", nil, []byte("/")); len(got) == 9 {
			return
		}
	}
	t.Errorf("%d bytes for a request that came before: %x", len(got), got)
}

func TestAppendTrailer(t *testing.T) {
	e, d := NewEncoder(), hpack.NewDecoder(4096, nil)
	for range 4 {
		got := readBack(t, d, e.AppendTrailer(nil, []byte("Grpc-Status: 0\r\ngrpc-message:\t a b \r\nTE: x\r\nETag: \"y\"\r\n")))
		if got != "grpc-status: 0|grpc-message: a b|etag: \"y\"|" {
			t.Error(got)
		}
	}
	if got := e.AppendTrailer(nil, nil); len(got) != 0 {
		t.Errorf("%x", got)
	}
}

// Values that are different each time do not push out those that come again.
func TestFickleFields(t *testing.T) {
	e := NewEncoder()
	var stable, size int
	for i := range 2000 {
		m := response(200, "Server: nginx", "X-Powered-By: Express", "Cache-Control: no-store",
			fmt.Sprintf("Date: %d", i/10), fmt.Sprintf("ETag: %d", i), fmt.Sprintf("X-Trace: %032d", i), fmt.Sprintf("X-Runtime: %d", i), fmt.Sprintf("Content-Length: %d", i%100))
		size = len(e.AppendResponse(nil, m))
		if i == 100 {
			stable = e.table.count()
		}
	}
	if stable != 3 || e.table.count() != 3 {
		t.Errorf("%d entries, then %d, want the three that repeat:\n%s", stable, e.table.count(), dump(&e.table))
	}
	if size > 100 {
		t.Errorf("%d bytes", size)
	}
}

func TestTableSize(t *testing.T) {
	m := response(200, "Server: nginx", "X-Powered-By: Express")
	e, d := NewEncoder(), hpack.NewDecoder(4096, nil)
	const want = ":status: 200|server: nginx|x-powered-by: Express|"
	check := func(prefix string) {
		t.Helper()
		for i := range 4 {
			b := e.AppendResponse(nil, m)
			if i == 0 && !bytes.HasPrefix(b, []byte(prefix+"\x88")) {
				t.Errorf("%x, want %x first", b, prefix)
			}
			if got := readBack(t, d, b); got != want {
				t.Error(got)
			}
		}
	}
	check("")
	e.SetMaxTable(4096)
	check("")
	e.SetMaxTable(1 << 20) // more than we use
	check("")
	e.SetMaxTable(0)
	check("\x20")
	if e.table.count() != 0 {
		t.Error("entries in a table of no size")
	}
	e.SetMaxTable(100)
	check("\x3f\x45")
	e.SetMaxTable(60)
	e.SetMaxTable(50)
	e.SetMaxTable(200)
	check("\x20\x3f\xa9\x01")
	e.SetMaxTable(4096)
	check("\x3f\xe1\x1f")
}

// FuzzEncoder: x/net and our own decoder read what was put in, over many blocks and table sizes.
func FuzzEncoder(f *testing.F) {
	f.Add([]byte("Server: nginx\nX: y\nDate: z\nServer: nginx\n\nX: y\nServer: nginx\n\x01Vary: a\nX: y\n\nVary: a\nX: y"))
	f.Add([]byte("a: b\nc: d\n\na: b\nc: d\n\x00\na: b\nc: d\n\x20\na: b"))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, theirs, ours := NewEncoder(), hpack.NewDecoder(4096, nil), NewDecoder(4096)
		for range 3 {
			for text := range bytes.SplitSeq(in, []byte("\n\n")) {
				m := response(200)
				want := ":status: 200|"
				for line := range bytes.SplitSeq(text, []byte("\n")) {
					if len(line) > 0 && line[0] < 0x40 {
						e.SetMaxTable(int(line[0]) * 64)
						line = line[1:]
					}
					name, value, _ := bytes.Cut(line, []byte(": "))
					if !core.ValidToken(name) {
						continue
					}
					lowered := bytes.ToLower(name)
					if k, id := classify(lowered); k != kindPlain && k != kindCookie || k.check(value) != faultNone || id == core.FieldTE {
						continue
					}
					m.AddName(string(name), value)
					mark := ""
					if secret>>core.LookupField(name)&1 != 0 {
						mark = "!"
					}
					want += fmt.Sprintf("%s%s: %s|", mark, lowered, value)
				}
				block := e.AppendResponse(nil, m)
				if got := readBack(t, theirs, block); got != want {
					t.Fatalf("%q: got %q, want %q", text, got, want)
				}
				var back core.Message
				back.Reset()
				if err := ours.DecodeResponse(&back, block, &Limits{1 << 20, 1 << 20}); err != nil {
					t.Fatalf("%q: %v", text, err)
				}
				got := ":status: 200|" + strings.ReplaceAll(string(back.AppendLines(nil)), "\r\n", "|")
				if got != strings.ReplaceAll(want, "!", "") && !bytes.ContainsAny(text, "!") {
					t.Fatalf("%q: read %q, want %q", text, got, want)
				}
				if dump(&e.table) != dump(&ours.table) {
					t.Fatalf("%q: tables differ: %q and %q", text, dump(&e.table), dump(&ours.table))
				}
			}
		}
	})
}

func TestEncoderAllocatesNothing(t *testing.T) {
	e, m, r := NewEncoder(), responseMessage(), requestMessage()
	var out []byte
	lines := []byte("grpc-status: 0\r\ngrpc-message: x\r\n")
	f := func() {
		out = e.AppendResponse(out[:0], m)
		out = e.AppendRequest(out, r, "https", nil, nil)
		out = e.AppendTrailer(out, lines)
	}
	for range 3 {
		f()
	}
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
