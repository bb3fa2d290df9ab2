package http2

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/http1"
	"golang.org/x/net/http2/hpack"
)

// FuzzBlocks: x/net reads the same fields of any bytes, or refuses them too, and both have the same table afterwards.
func FuzzBlocks(f *testing.F) {
	blocks := browserBlocks(2)
	f.Add(append(blocks[0], blocks[1]...), uint16(len(blocks[0])))
	f.Add([]byte("\x88\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x84\xa6\x2d\x1b\xff\xc0"), uint16(3))
	f.Add([]byte("\x20\x3f\xe1\x1f\x88\x40\x01a\x01b\xbe\x7e\x03xyz\xbf\x0f\x2f\x01c\x10\x01d\x00"), uint16(12))
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		if len(in) > 4<<10 {
			return
		}
		ours, theirs := NewDecoder(4096), hpack.NewDecoder(4096, nil)
		for _, b := range [][]byte{in[:min(len(in), int(cut))], in[min(len(in), int(cut)):]} {
			var m core.Message
			m.Reset()
			err := ours.DecodeResponse(&m, b, &Limits{1 << 20, 1 << 20})
			fields, failure := theirs.DecodeFull(b)
			if broken := (*ConnError)(nil); errors.As(err, &broken) {
				// x/net takes longer integers, and a size update in the middle of a block while its table is empty.
				if failure == nil && broken != errInteger && broken != errString && broken != errLateResize {
					t.Fatalf("%x: %v, x/net %q", b, err, fields)
				}
				return
			}
			if failure != nil && strings.Contains(failure.Error(), "size update MUST") {
				return // x/net takes one only, where there may be two
			}
			if failure != nil {
				t.Fatalf("%x: accepted, x/net %v", b, failure)
			}
			var want strings.Builder
			for age := 1; age <= ours.table.count(); age++ {
				e, err := theirs.DecodeFull(appendInt(nil, 0x80, 7, staticCount+age))
				if err != nil {
					t.Fatalf("%x: entry %d: %v", b, age, err)
				}
				want.WriteString(e[0].Name + ": " + e[0].Value + "\r\n")
			}
			if _, err := theirs.DecodeFull(appendInt(nil, 0x80, 7, staticCount+ours.table.count()+1)); err == nil {
				t.Fatalf("%x: x/net has more than %d entries", b, ours.table.count())
			}
			_ = theirs.Close()
			if got := dump(&ours.table); got != strings.ReplaceAll(want.String(), "\r\n", "|") {
				t.Fatalf("%x: table %q, x/net %q", b, got, want.String())
			}
			if err == nil {
				compareLines(t, b, &m, fields)
			}
		}
	})
}

func compareLines(t *testing.T, b []byte, m *core.Message, fields []hpack.HeaderField) {
	var want strings.Builder
	for _, f := range fields {
		switch {
		case f.Name == ":status", f.Name == "te", strings.HasPrefix(f.Name, "proxy-auth"):
		case f.Name == "content-length" && m.ContentLength < 0:
		default:
			want.WriteString(f.Name + ": " + f.Value + "\r\n")
		}
	}
	if got := m.AppendLines(nil); string(got) != want.String() {
		t.Fatalf("%x: %q, x/net %q", b, got, want.String())
	}
}

var requestSeeds = []string{
	"GET\n/\nhttps\na.example\n\naccept: */*\nx: y",
	"POST\n/a?b\nhttp\na:80\n\ncontent-length: 5\nexpect: 100-continue",
	"GET\n/\nhttps\n\n\nhost: a\ncookie: a=b\ncookie: c",
	"GET\n/\nhttps\na\n\nhost: a:443\nx_forwarded_for: 1\ntransfer_encoding: 1",
	"OPTIONS\n*\nhttps\na\n\n", "CONNECT\n\n\na:443\n\n", "CONNECT\n/\nhttps\na:443\nwebsocket\nte: trailers",
	"GET\n/a b\nhttps\na@b\n\nX: y\nconnection: close\nupgrade: x", "GET\n/x#y\nftp\n[::1]:8\n\n:path: /\nx:  y",
	"GET\n/" + strings.Repeat("p", 300) + "\nhttps\na\n\n", "GET\n/\nhttps\na\n\n" + strings.Repeat("x: y\n", 12), "GET\n/\nhttps\na\n\nx: " + strings.Repeat("y", 400),
	"GET\n/\nhttps\na\n\n\nx\x00: y\nz: \x7f", "G(T\n\nhttps\na..b\n\ncontent-length: 05\ncontent-length: 5",
}

// The limits are those of HTTP/1.1, to the byte and to the field.
func TestLimits(t *testing.T) {
	const text = "GET /v1/items HTTP/1.1\r\nhost: shop.example\r\nx: y\r\ncontent-length: 5\r\nexpect: 100-continue\r\nx_via: z\r\ncookie: a=b; c=d\r\n\r\n"
	in := block(":method: GET", ":path: /v1/items", ":scheme: https", ":authority: shop.example", "x: y", "content-length: 5",
		"expect: 100-continue", "x_via: z", "cookie: a=b", "cookie: c=d")
	for size := 1; size < len(text)+3; size++ {
		for fields := 1; fields < 8; fields++ {
			var m, same core.Message
			m.Reset()
			same.Reset()
			_, err := NewDecoder(0).DecodeRequest(&m, in, &Limits{size, fields})
			n, want := http1.ParseRequest(&same, []byte(text), &http1.Limits{HeaderBytes: size, Headers: fields})
			status := 0
			if err == error(errBomb) { // of limits as small as these
				status = 431
			} else if err != nil {
				status = err.(*core.Error).Status
			}
			if (n > 0) != (err == nil) || want != nil && status != want.Status && !(status == 414 && want.Status == 431 || status == 431 && want.Status == 414) {
				t.Fatalf("%d bytes, %d fields: %v, HTTP/1.1 %v", size, fields, err, want)
			}
		}
	}
}

// FuzzVerdict: what is accepted here is accepted by the parser of HTTP/1.1 and read by it and by net/http in the same way;
// what could be said in HTTP/1.1 gets the same verdict from both. The input is method, path, scheme, authority and
// protocol, and a field on each line after them.
func FuzzVerdict(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, in string, tight bool) {
		parts := strings.Split(in, "\n")
		if len(parts) < 5 || len(in) > 16<<10 {
			return
		}
		lim := wide
		if tight {
			lim = Limits{HeaderBytes: 256, Headers: 8}
		}
		var fields []string
		for i, name := range []string{":method: ", ":path: ", ":scheme: ", ":authority: ", ":protocol: "} {
			if parts[i] != "" {
				fields = append(fields, name+parts[i])
			}
		}
		for _, p := range parts[5:] {
			if p != "" {
				fields = append(fields, p)
			}
		}
		d, p := NewDecoder(4096), newPeer()
		var m, again core.Message
		m.Reset()
		again.Reset()
		_, err := d.DecodeRequest(&m, p.block(fields...), &lim)
		_, err2 := d.DecodeRequest(&again, p.block(fields...), &lim)
		if err != err2 || describe(&m) != describe(&again) {
			t.Fatalf("%q: %v, %s; by indexes %v, %s", in, err, describe(&m), err2, describe(&again))
		}
		if broken := (*ConnError)(nil); errors.As(err, &broken) && broken != errBomb {
			t.Fatalf("%q: %v", in, err)
		}
		if err == nil {
			compareText(t, in, &m, &lim)
		}
		compareVerdict(t, in, parts, err, &lim)
	})
}

// compareText reads an accepted request again, as HTTP/1.1 text.
func compareText(t *testing.T, in string, m *core.Message, lim *Limits) {
	text := append([]byte(nil), m.MethodBytes()...)
	text = append(append(append(text, ' '), m.Bytes(m.Target)...), " HTTP/1.1\r\n"...)
	text = append(m.AppendLines(text), "\r\n"...)
	var back core.Message
	back.Reset()
	n, refused := http1.ParseRequest(&back, text, &http1.Limits{HeaderBytes: lim.HeaderBytes, Headers: lim.Headers})
	if n != len(text) || refused != nil {
		t.Fatalf("%q: as HTTP/1.1 %q: %d, %v", in, text, n, refused)
	}
	back.Adopt(text)
	want := strings.Replace(describe(m), " upgrade", "", 1)
	if m.Protocol != nil {
		want = strings.Replace(want, " protocol="+string(m.Protocol), "", 1)
	}
	if got := describe(&back); got != want {
		t.Fatalf("%q: %s, as HTTP/1.1 %s", in, want, got)
	}
	if m.NormalizeTarget(false) != nil {
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		if m.Has(core.FieldTrailer) && strings.Contains(err.Error(), "bad trailer key") {
			return // only an announcement
		}
		t.Fatalf("%q: net/http: %v", in, err)
	}
	if r.Method != string(m.MethodBytes()) || r.RequestURI != string(m.Bytes(m.Target)) || r.Host != string(m.Host()) {
		t.Fatalf("%q: %s, net/http %q %q %q", in, describe(m), r.Method, r.RequestURI, r.Host)
	}
	ours := http.Header{}
	m.All(func(id core.FieldID, name, value []byte) bool {
		if id != core.FieldHost && id != core.FieldTrailer {
			key := textproto.CanonicalMIMEHeaderKey(string(name))
			ours[key] = append(ours[key], string(value))
		}
		return true
	})
	r.Header.Del("Trailer")
	if v := ours["Pragma"]; len(v) > 0 && v[0] == "no-cache" && ours["Cache-Control"] == nil {
		r.Header.Del("Cache-Control")
	}
	if !reflect.DeepEqual(ours, r.Header) {
		t.Fatalf("%q: %q, net/http %q", in, ours, r.Header)
	}
}

// compareVerdict gives the request to the parser of HTTP/1.1, unless it has what only one of the protocols knows.
func compareVerdict(t *testing.T, in string, parts []string, err error, lim *Limits) {
	method, path, scheme, authority := parts[0], parts[1], parts[2], parts[3]
	connect := method == "CONNECT"
	if parts[4] != "" || method == "" || path == "" && !connect || connect && (path != "" || scheme != "" || authority == "") ||
		!connect && (core.EqualFold([]byte(scheme), "http") == core.EqualFold([]byte(scheme), "https")) {
		return
	}
	if connect {
		path = authority
	}
	if path[0] != '/' && path != "*" && !connect { // forms that only HTTP/1.1 has
		return
	}
	if strings.ContainsAny(method+path, " \r\n\t") {
		return
	}
	text := method + " " + path + " HTTP/1.1\r\n"
	if authority != "" {
		if strings.ContainsAny(authority, "\r\n\t ") {
			return
		}
		text += "Host: " + authority + "\r\n"
	}
	cookies, length := 0, len(text)
	for _, p := range parts[5:] {
		if p == "" {
			continue
		}
		name, value, _ := strings.Cut(p[1:], ": ")
		name = p[:1] + name
		switch k, _ := classify([]byte(name)); {
		case kindFaults[k] != faultNone && k != kindFramingAlike, k >= kindMethod, k == kindTE, k == kindHost && authority != "":
			return
		case k == kindCookie:
			cookies++
		}
		if strings.Trim(value, " \t") != value || strings.ContainsAny(value, "\r\n") {
			return
		}
		text += name + ": " + value + "\r\n"
		length += len(name) + len(value) + 4
	}
	if cookies > 1 || length > bombFactor*lim.HeaderBytes || len(parts) > bombFactor*lim.Headers {
		return
	}
	var m core.Message
	m.Reset()
	n, refused := http1.ParseRequest(&m, []byte(text+"\r\n"), &http1.Limits{HeaderBytes: lim.HeaderBytes, Headers: lim.Headers})
	ours, _ := err.(*core.Error)
	if (refused == nil) != (ours == nil) || n == 0 && refused == nil {
		t.Fatalf("%q: %v, HTTP/1.1 %q: %v", in, err, text, refused)
	}
	if refused != nil && refused.Status != ours.Status && !strings.ContainsAny(text, "\x00") && refused.Status != 400 && ours.Status != 400 {
		t.Fatalf("%q: %v, HTTP/1.1 %v", in, ours, refused)
	}
}
