package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// decodeSplit feeds in to d in parts of the given sizes, in turn; the rest comes at once.
func decodeSplit(d *ChunkDecoder, in []byte, sizes []byte) (data []byte, consumed int, done bool, err *core.Error) {
	d.Reset()
	for !done && err == nil && consumed < len(in) {
		n := len(in) - consumed
		if len(sizes) > 0 {
			n, sizes = min(n, int(sizes[0])+1), sizes[1:]
		}
		part := bytes.Clone(in[consumed : consumed+n])
		var start, end, used int
		start, end, used, done, err = d.Decode(part)
		if start < 0 || start > end || end > used || used > n || used < n && !done && err == nil {
			panic(fmt.Sprintf("Decode = %d, %d, %d, %v of %d bytes", start, end, used, done, n))
		}
		data = append(data, part[start:end]...)
		consumed += used
	}
	return data, consumed, done, err
}

func TestChunksAccepted(t *testing.T) {
	for _, c := range []struct{ in, data, trailer string }{
		{"0\r\n\r\n", "", ""},
		{"5\r\nhello\r\n0\r\n\r\n", "hello", ""},
		{"5\r\nhello\r\n00000A\r\n, world!!!\r\n000\r\n\r\n", "hello, world!!!", ""},
		{"a\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""},
		{"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "\r\n", ""},
		{"5;a\r\nhello\r\n0;b=c\r\n\r\n", "hello", ""},
		{"5 ; a = \"x;\\\"\\\\\t\xff\" ;b=c; d\r\nhello\r\n0\r\n\r\n", "hello", ""},
		{strings.Repeat("1\r\nx\r\n", 40) + "0\r\n\r\n", strings.Repeat("x", 40), ""},
		{"0\r\nETag: \"x\"\r\nX-Sum:1 \r\n\r\n", "", "ETag: \"x\"\r\nX-Sum:1 \r\n"},
		{"0\r\nContent-Digest: a\r\nContent-MD5: b\r\nAuthorization: c\r\nX: d\r\nset-cookie: e\r\nx_forwarded_for: f\r\nIf-Match: g\r\nx_y: h\r\nConnection: i\r\nRange: j\r\n\r\n",
			"", "Content-Digest: a\r\nX: d\r\nx_y: h\r\n"},
		{"0\r\n" + strings.Repeat("X: y\r\n", maxTrailerLines) + "\r\n", "", strings.Repeat("X: y\r\n", maxTrailerLines)},
		{"0" + strings.Repeat(";a", maxExtensionBytes/2-1) + "\r\n\r\n", "", ""},
	} {
		var d ChunkDecoder
		in := []byte(c.in + "GET / HTTP/1.1\r\n")
		for _, sizes := range [][]byte{nil, make([]byte, len(in)), {1, 1, 1}, {3, 0, 2, 5, 1}} {
			data, n, done, err := decodeSplit(&d, in, sizes)
			if !done || err != nil || n != len(c.in) || string(data) != c.data || string(d.Trailer()) != c.trailer {
				t.Errorf("%.80q in parts %.8v: %q, %q, n = %d, %v, %v", c.in, sizes, data, d.Trailer(), n, done, err)
			}
		}
		for k := range len(c.in) {
			if _, n, done, err := decodeSplit(&d, in[:k], nil); n != k || done || err != nil {
				t.Errorf("%.80q: n = %d, %v, %v", in[:k], n, done, err)
			}
		}
	}
}

func TestChunksRefused(t *testing.T) {
	for _, c := range []struct {
		name, in string
		status   int
		detail   string
	}{
		{"no size", "\r\n\r\n", 400, "size"},
		{"no size after a chunk", "5\r\nhello\r\n\r\n\r\n", 400, "size"},
		{"no digit", ";a\r\n", 400, "size"},
		{"white space before the size", " 5\r\nhello\r\n", 400, "size"},
		{"white space after the size", "5 \r\nhello\r\n", 400, "extension"},
		{"tab after the size", "5\t\r\nhello\r\n", 400, "extension"},
		{"signed size", "+5\r\nhello\r\n", 400, "size"},
		{"negative size", "-5\r\nhello\r\n", 400, "size"},
		{"prefix of a size", "0x5\r\nhello\r\n", 400, "size"},
		{"size in pages", "5_000\r\n", 400, "size"},
		{"no hexadecimal digit", "g\r\n", 400, "size"},
		{"overflowing size", "10000000000000005\r\nhello\r\n", 400, "size"},
		{"size of many zeros", strings.Repeat("0", 100), 400, "size"},
		{"bare LF after the size", "5\nhello\r\n", 400, "size"},
		{"bare CR after the size", "5\rhello\r\n", 400, "size"},
		{"bare LF after an extension", "5;a\nhello\r\n", 400, "extension"},
		{"bare semicolon", "5;\r\nhello\r\n", 400, "extension"},
		{"bare equals sign", "5;a=\r\nhello\r\n", 400, "extension"},
		{"value without a name", "5;=a\r\nhello\r\n", 400, "extension"},
		{"two semicolons", "5;;a\r\nhello\r\n", 400, "extension"},
		{"bad token", "5;a(\r\nhello\r\n", 400, "extension"},
		{"bad value", "5;a=b c\r\nhello\r\n", 400, "extension"},
		{"white space after an extension", "5;a \r\nhello\r\n", 400, "extension"},
		{"quote left open", "5;a=\"b\r\nhello\r\n", 400, "extension"},
		{"text after a quote", "5;a=\"b\"c\r\nhello\r\n", 400, "extension"},
		{"NUL in a quote", "5;a=\"\x00\"\r\nhello\r\n", 400, "extension"},
		{"escaped LF in a quote", "5;a=\"\\\n\"\r\nhello\r\n", 400, "extension"},
		{"long extension", "5;" + strings.Repeat("a", maxExtensionBytes+1), 400, "too long"},
		{"many extensions", strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 5), 400, "too long"},
		{"data longer than the size", "5\r\nhello!\r\n0\r\n\r\n", 400, "CRLF"},
		{"data without CRLF", "5\r\nhello0\r\n\r\n", 400, "CRLF"},
		{"bare LF after the data", "5\r\nhello\n0\r\n\r\n", 400, "CRLF"},
		{"bare CR after the data", "5\r\nhello\r0\r\n\r\n", 400, "CRLF"},
		{"bare LF in the trailer", "0\r\nX: y\n\r\n", 400, "malformed trailer"},
		{"bare LF at the end", "0\r\n\n", 400, "malformed trailer"},
		{"folded trailer", "0\r\nX: y\r\n z\r\n\r\n", 400, "malformed trailer"},
		{"no colon in the trailer", "0\r\nX\r\n\r\n", 400, "malformed trailer"},
		{"NUL in the trailer", "0\r\nX: \x00\r\n\r\n", 400, "malformed trailer"},
		{"a request for a trailer", "0\r\nGET / HTTP/1.1\r\n\r\n", 400, "malformed trailer"},
		{"Content-Length trailer", "0\r\nContent-Length: 5\r\n\r\n", 400, "framing field"},
		{"Transfer-Encoding trailer", "0\r\ntransfer-encoding: chunked\r\n\r\n", 400, "framing field"},
		{"Host trailer", "0\r\nHost: b\r\n\r\n", 400, "framing field"},
		{"look-alike trailer", "0\r\nContent_Length: 5\r\n\r\n", 400, "framing field"},
		{"many trailers", "0\r\n" + strings.Repeat("X: y\r\n", maxTrailerLines+1) + "\r\n", 431, "trailer"},
		{"many dropped trailers", "0\r\n" + strings.Repeat("Via: y\r\n", maxTrailerLines+1) + "\r\n", 431, "trailer"},
		{"long trailer", "0\r\nX: " + strings.Repeat("y", maxTrailerBytes), 431, "trailer"},
	} {
		for _, response := range []bool{false, true} {
			d := ChunkDecoder{Response: response}
			for _, sizes := range [][]byte{nil, make([]byte, len(c.in))} {
				_, _, done, err := decodeSplit(&d, []byte(c.in), sizes)
				if done || err == nil {
					t.Errorf("%s: accepted", c.name)
					continue
				}
				if status := c.status; !strings.Contains(err.Detail, c.detail) || !response && err.Status != status || response && err.Status != 502 {
					t.Errorf("%s: error %+v, want %d %q", c.name, err, c.status, c.detail)
				}
			}
		}
	}
}

// Data is moved together without a copy when there is one chunk, and never over bytes that have not been read.
func TestChunksInPlace(t *testing.T) {
	var d ChunkDecoder
	b := []byte("3\r\nabc\r\n4\r\ndefg\r\n5\r\nhi")
	start, end, consumed, done, err := d.Decode(b)
	if string(b[start:end]) != "abcdefghi" || start != 3 || consumed != len(b) || done || err != nil {
		t.Errorf("got %d, %d, %d, %v, %v: %q", start, end, consumed, done, err, b)
	}
	b = []byte("jkl\r\n0\r\n\r\nGET")
	start, end, consumed, done, err = d.Decode(b)
	if string(b[start:end]) != "jkl" || start != 0 || string(b[consumed:]) != "GET" || !done || err != nil {
		t.Errorf("got %d, %d, %d, %v, %v: %q", start, end, consumed, done, err, b)
	}
	if _, _, consumed, done, err = d.Decode(b[consumed:]); consumed != 0 || !done || err != nil {
		t.Errorf("after the end: %d, %v, %v", consumed, done, err)
	}
}
