package http1

import (
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

const smallHead = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"

const browserHead = "GET /v1/catalog/items/4711?page=2&sort=price HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\n" +
	"Referer: https://shop.example.com/v1/catalog\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=eyJhbGwiOnRydWV9; cart=98765432109876\r\n" +
	"\r\n"

const responseHead = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 04:30:25 GMT\r\n" +
	"Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n"

var wideLimits = Limits{HeaderBytes: 32 << 10, Headers: 100}

func benchmarkRequest(b *testing.B, head string) {
	var m core.Message
	in := []byte(head)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		m.Reset()
		if n, err := ParseRequest(&m, in, &wideLimits); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkParseRequestSmall(b *testing.B)   { benchmarkRequest(b, smallHead) }
func BenchmarkParseRequestBrowser(b *testing.B) { benchmarkRequest(b, browserHead) }

func BenchmarkParseResponse(b *testing.B) {
	var m core.Message
	in := []byte(responseHead)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		m.Reset()
		if n, err := ParseResponse(&m, in, &wideLimits); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkRemoveHopByHop(b *testing.B) {
	var m core.Message
	in := []byte(browserHead)
	m.Reset()
	if _, err := ParseRequest(&m, in, &wideLimits); err != nil {
		b.Fatal(err)
	}
	m.Adopt(in)
	b.ReportAllocs()
	for b.Loop() {
		RemoveHopByHop(&m)
	}
}

func BenchmarkDecodeChunks(b *testing.B) {
	var body []byte
	for range 16 {
		body = append(append(body, "400\r\n"...), make([]byte, 1024)...)
		body = append(body, "\r\n"...)
	}
	body = append(body, "0\r\n\r\n"...)
	buf := make([]byte, len(body))
	var d ChunkDecoder
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		d.Reset()
		copy(buf, body)
		if _, _, _, done, err := d.Decode(buf); !done || err != nil {
			b.Fatal(err)
		}
	}
}

// The steady state must not allocate, whether the message is right or wrong.
func TestParseAllocatesNothing(t *testing.T) {
	var m core.Message
	var d ChunkDecoder
	const named = "GET /%61/../b HTTP/1.1\r\nHost: example.com\r\nX-One: 1\r\nConnection: x-one, upgrade, x-name-that-is-longer-than-thirty-two-bytes\r\n" +
		"Transfer-Encoding: chunked\r\nUpgrade: websocket\r\nx_forwarded_for: 1\r\n\r\n"
	chunks := []byte("5;a=\"b\"\r\nhello\r\n1\r\nx\r\n0\r\nETag: \"a\"\r\nContent-Type: x\r\n\r\n")
	buf := make([]byte, len(chunks))
	parse := func(in []byte) {
		m.Reset()
		n, _ := ParseRequest(&m, in, &wideLimits)
		if n > 0 {
			m.Adopt(in)
			RemoveHopByHop(&m)
			m.NormalizeTarget(true)
		}
	}
	run := func(head string) func() {
		in := []byte(head)
		return func() { parse(in) }
	}
	const long = "a-host-name-that-is-longer-than-thirty-two-bytes.example.com"
	for name, f := range map[string]func(){
		"small":     run(smallHead),
		"browser":   run(browserHead),
		"nominated": run(named),
		"absolute":  run("GET http://" + long + "/ HTTP/1.1\r\nHost: " + long + "\r\n\r\n"),
		"refused":   run("GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
		"response": func() {
			m.Reset()
			if n, err := ParseResponse(&m, []byte(responseHead), &wideLimits); n == 0 || err != nil {
				t.Fatal(n, err)
			}
		},
		"chunks": func() {
			d.Reset()
			copy(buf, chunks)
			if _, _, _, done, err := d.Decode(buf); !done || err != nil {
				t.Fatal(done, err)
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
