package server

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fixedH2Upstream gives every request the same answer, once it is whole. A request costs it no memory.
type fixedH2Upstream struct {
	addr  string
	block []byte // of the answer's head
	body  []byte // no longer than a window
}

func newFixedH2Upstream(t testing.TB, body string) *fixedH2Upstream {
	t.Helper()
	u := &fixedH2Upstream{body: []byte(body)}
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSizeLimit(0) // so that the block is the same each time
	for _, f := range [][2]string{{":status", "200"}, {"content-type", "text/plain"}, {"content-length", fmt.Sprint(len(body))}, {"date", "Sat, 21 Nov 2026 10:00:00 GMT"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	u.block = []byte(block.String())
	u.addr = serveConns(t, u.serve) // the gateway, started later, has ended and closed its connections by then
	return u
}

func appendFrame(b []byte, kind xhttp2.FrameType, flags xhttp2.Flags, id uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	return append(binary.BigEndian.AppendUint32(b, id), payload...)
}

func (u *fixedH2Upstream) serve(c net.Conn) {
	buf, out := make([]byte, 256<<10), make([]byte, 0, 4<<20)
	if _, err := io.ReadFull(c, buf[:len(xhttp2.ClientPreface)]); err != nil {
		return
	}
	out = appendFrame(out, xhttp2.FrameSettings, 0, 0, []byte{0, byte(xhttp2.SettingInitialWindowSize), 0, 0x10, 0, 0})
	var update [4]byte
	for got := 0; ; {
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		n, err := c.Read(buf[got:])
		if err != nil {
			return
		}
		got += n
		used, received := 0, 0
		for got-used >= 9 {
			b := buf[used:got]
			size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
			if len(b) < 9+size {
				break
			}
			used += 9 + size
			kind, id := xhttp2.FrameType(b[3]), binary.BigEndian.Uint32(b[5:])
			switch {
			case kind == xhttp2.FrameSettings && b[4]&1 == 0:
				out = appendFrame(out, xhttp2.FrameSettings, xhttp2.FlagSettingsAck, 0, nil)
			case kind == xhttp2.FrameData:
				received += size
			}
			if (kind == xhttp2.FrameData || kind == xhttp2.FrameHeaders) && b[4]&1 != 0 {
				out = u.answer(out, id)
			}
		}
		got = copy(buf, buf[used:got])
		if received > 0 {
			binary.BigEndian.PutUint32(update[:], uint32(received))
			out = appendFrame(out, xhttp2.FrameWindowUpdate, 0, 0, update[:])
		}
	}
}

func (u *fixedH2Upstream) answer(out []byte, id uint32) []byte {
	out = appendFrame(out, xhttp2.FrameHeaders, xhttp2.FlagHeadersEndHeaders, id, u.block)
	for rest := u.body; ; {
		n := min(len(rest), 16<<10)
		flags := xhttp2.Flags(0)
		if n == len(rest) {
			flags = xhttp2.FlagDataEndStream
		}
		out = appendFrame(out, xhttp2.FrameData, flags, id, rest[:n])
		if rest = rest[n:]; len(rest) == 0 {
			return out
		}
	}
}

// TestHTTP2UpstreamNoAllocations shows that a request to an HTTP/2 upstream costs no allocation, whatever its client speaks.
func TestHTTP2UpstreamNoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	fields := func(method string, size int) []string {
		f := requestFields(method, "/", "user-agent", "test", "accept", "*/*", "cookie", "a=b", "x-other", "value")
		if size > 0 {
			f = append(f, "content-length", fmt.Sprint(size))
		}
		return f
	}
	for _, c := range []struct {
		name         string
		body, answer string
		atOnce       int // 0: over HTTP/1.1
	}{
		{"h1: get", "", bodyOf(1 << 10), 0},
		{"h1: answer of 60 KiB", "", bodyOf(60 << 10), 0},
		{"h1: post", bodyOf(2 << 10), bodyOf(1 << 10), 0},
		{"h1: post of 200 KiB", bodyOf(200 << 10), end, 0},
		{"h2c: get", "", bodyOf(1 << 10), 1},
		{"h2c: 32 at once", "", bodyOf(1 << 10), 32},
		{"h2c: answer of 60 KiB", "", bodyOf(60 << 10), 1},
		{"h2c: post", bodyOf(2 << 10), bodyOf(1 << 10), 1},
		{"h2c: post of 16 KiB, 8 at once", bodyOf(16 << 10), end, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newFixedH2Upstream(t, c.answer)
			g := newGate(t, muxConfig(`"`+u.addr+`"`, ""))
			var run func(n int) error
			switch {
			case c.atOnce > 0 && c.body == "":
				client := newFixedH2(t, g.addr, "", fields("GET", 0)...)
				run = func(n int) error { return client.exchange(n, c.atOnce) }
			case c.atOnce > 0:
				client := newFixedH2(t, g.addr, c.body, fields("POST", len(c.body))...)
				run = func(n int) error { return client.exchange(n, c.atOnce) }
			case c.body == "":
				run = newFixedClient(t, g.addr, end, get).exchange
			default:
				run = newFixedClient(t, g.addr, end, post(c.body)).exchange
			}
			const counted = countedRequests / 2
			if err := run(warmRequests); err != nil {
				t.Fatal(err)
			}
			if per := mallocs(t, counted, run); per >= allocsPerRequest {
				t.Errorf("%.4f allocations a request, want less than %v", per, allocsPerRequest)
			}
			if n := g.upstreams(); n != 1 {
				t.Errorf("%d connections to the upstream", n)
			}
		})
	}
}
