package http1

import (
	"bytes"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

type parseFunc func(*core.Message, []byte, *Limits) (int, *core.Error)

// checkHead parses in and each of its beginnings: more bytes never change what has been decided.
func checkHead(t *testing.T, parse parseFunc, in []byte) {
	lim := Limits{HeaderBytes: 512, Headers: 10}
	var m core.Message
	n, err := 0, (*core.Error)(nil)
	for k := 0; k <= min(len(in), lim.HeaderBytes+2); k++ {
		m.Reset()
		n2, err2 := parse(&m, in[:k], &lim)
		if n2 > k || n2 > 0 && err2 != nil || n2 > lim.HeaderBytes {
			t.Fatalf("%q: n = %d, %v", in[:k], n2, err2)
		}
		if (n > 0 || err != nil) && (n2 != n || err2 != err) {
			t.Fatalf("%q: n = %d, %v; with one byte less %d, %v", in[:k], n2, err2, n, err)
		}
		if k >= lim.HeaderBytes && n2 == 0 && err2 == nil {
			t.Fatalf("%q: limit exceeded", in[:k])
		}
		n, err = n2, err2
	}
	m.Reset()
	if n, _ = parse(&m, in, &lim); n == 0 {
		return
	}
	m.Adopt(in[:n])
	if m.Count() > lim.Headers {
		t.Fatalf("%q: %d fields", in, m.Count())
	}
	m.All(func(id core.FieldID, name, value []byte) bool {
		if !core.ValidToken(name) || id != core.LookupField(name) || !bytes.Equal(trim(value), value) {
			t.Fatalf("%q: field %q: %q", in, name, value)
		}
		for _, c := range value {
			if isControl(c) {
				t.Fatalf("%q: field %q: %q", in, name, value)
			}
		}
		return true
	})
	// What is forwarded reads as what was received, and again has nothing that is hop-by-hop.
	RemoveHopByHop(&m)
	line := in[:bytes.IndexByte(in[2:], '\n')+3]
	sent := append(m.AppendLines(bytes.Clone(line)), "\r\n"...)
	var again core.Message
	again.Reset()
	if n, err := parse(&again, sent, &lim); n != len(sent) || err != nil {
		if m.Status == 101 && len(sent) > 0 { // its Connection field is added by who forwards it
			return
		}
		t.Fatalf("%q: sent %q: n = %d, %v", in, sent, n, err)
	}
	again.Adopt(sent)
	RemoveHopByHop(&again)
	if lines := again.AppendLines(bytes.Clone(line)); !m.Upgrade && !bytes.Equal(append(lines, "\r\n"...), sent) {
		t.Fatalf("%q: sent %q, then %q", in, sent, lines)
	}
}

func FuzzRequestHead(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkHead(t, ParseRequest, in) })
}

func FuzzResponseHead(f *testing.F) {
	for _, s := range responseSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkHead(t, ParseResponse, in) })
}

func FuzzChunked(f *testing.F) {
	for _, s := range chunkSeeds {
		f.Add([]byte(s), []byte{0, 3, 1})
	}
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		var whole, parts ChunkDecoder
		data, n, done, err := decodeSplit(&whole, in, nil)
		data2, n2, done2, err2 := decodeSplit(&parts, in, sizes)
		if err != err2 || done != done2 || n != n2 {
			t.Fatalf("%q: %d, %v, %v; in parts %d, %v, %v", in, n, done, err, n2, done2, err2)
		}
		if err == nil && (!bytes.Equal(data, data2) || !bytes.Equal(whole.Trailer(), parts.Trailer())) {
			t.Fatalf("%q: %q, %q; in parts %q, %q", in, data, whole.Trailer(), data2, parts.Trailer())
		}
		if done && (len(data) > n || len(whole.Trailer()) > maxTrailerBytes || bytes.Count(whole.Trailer(), []byte("\n")) > maxTrailerLines) {
			t.Fatalf("%q: more out than in", in)
		}
	})
}

var requestSeeds = []string{
	smallHead, browserHead, "\r\n" + smallHead, "GET / HTTP/1.0\r\n\r\n",
	"POST /a%2fb/../c?d HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
	"GET http://a:80/b HTTP/1.1\r\nHost: a\r\n\r\n", "GET https://[::1]?x HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, x\r\nUpgrade: websocket\r\nX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nY : c\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nX_Forwarded_For: b\r\nPragma: no-cache\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"0 / HTTP/1.0\r\n00\r0",
}

var responseSeeds = []string{
	responseHead + "x", responseWith("Content-Length: 5") + "hello", responseWith("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", responseWith() + "until the end",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81", "HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n",
	"HTTP/1.0 100\r\n00\r0", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 200\r\n\r\n", responseWith("Set-Cookie: a", "set-cookie: b", "Content-Length: 5, 5"),
}

var chunkSeeds = []string{
	"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\nnext", "5;a=\"b\\\"\";c\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\nVia: z\r\n\r\n", "5\nhello\n0\n\n", "5 \r\nhello\r\n",
	"ffffffffffffffff\r\n", "5;\r\nhello\r\n0\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
}
