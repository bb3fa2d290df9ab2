package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fixedH2 sends the same request again and again, some of them at once. A request costs it no memory.
type fixedH2 struct {
	conn  net.Conn
	block []byte
	body  []byte
	id    uint32
	out   []byte
	buf   []byte
}

func newFixedH2(t testing.TB, addr string, body string, fields ...string) *fixedH2 {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	var block, start bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSizeLimit(0) // so that the block is the same each time
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	start.WriteString(xhttp2.ClientPreface)
	_ = xhttp2.NewFramer(&start, nil).WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	if _, err := conn.Write(start.Bytes()); err != nil {
		t.Fatal(err)
	}
	return &fixedH2{conn: conn, block: block.Bytes(), body: []byte(body), id: 1, buf: make([]byte, 256<<10)}
}

func (c *fixedH2) frame(kind xhttp2.FrameType, flags xhttp2.Flags, id uint32, payload []byte) {
	n := len(payload)
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
	c.out = append(c.out, payload...)
}

// exchange makes n requests, so many at once. What is received is given back to the connection's window.
func (c *fixedH2) exchange(n, atOnce int) error {
	got := 0
	for range n / atOnce {
		c.out = c.out[:0]
		for range atOnce {
			flags := xhttp2.FlagHeadersEndHeaders
			if len(c.body) == 0 {
				flags |= xhttp2.FlagHeadersEndStream
			}
			c.frame(xhttp2.FrameHeaders, flags, c.id, c.block)
			if len(c.body) > 0 {
				c.frame(xhttp2.FrameData, xhttp2.FlagDataEndStream, c.id, c.body)
			}
			c.id += 2
		}
		if _, err := c.conn.Write(c.out); err != nil {
			return err
		}
		for ended := 0; ended < atOnce; {
			m, err := c.conn.Read(c.buf[got:])
			if err != nil {
				return fmt.Errorf("stream %d: %w", c.id, err)
			}
			got += m
			used, data := 0, uint32(0)
			for got-used >= 9 {
				b := c.buf[used:got]
				size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
				if len(b) < 9+size {
					break
				}
				switch kind := xhttp2.FrameType(b[3]); {
				case kind == xhttp2.FrameRSTStream || kind == xhttp2.FrameGoAway:
					return fmt.Errorf("%v on stream %d", kind, binary.BigEndian.Uint32(b[5:]))
				case kind == xhttp2.FrameData:
					data += uint32(size)
					fallthrough
				case kind == xhttp2.FrameHeaders:
					ended += int(b[4] & 1)
				}
				used += 9 + size
			}
			got = copy(c.buf, c.buf[used:got])
			if data > 0 {
				c.out = c.out[:0]
				c.frame(xhttp2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(c.buf[len(c.buf)-4:len(c.buf)-4], data))
				if _, err := c.conn.Write(c.out); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// TestHTTP2NoAllocations shows that a proxied request on kept connections costs no allocation in HTTP/2 either.
func TestHTTP2NoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	get := requestFields("GET", "/", "user-agent", "test", "accept", "*/*", "cookie", "a=b", "x-other", "value")
	post := func(size int) []string {
		return requestFields("POST", "/upload", "content-length", fmt.Sprint(size), "content-type", "text/plain")
	}
	for _, c := range []struct {
		name   string
		fields []string
		body   string
		answer string
		atOnce int
	}{
		{"get", get, "", answerOf(bodyOf(1 << 10)), 1},
		{"32 at once", get, "", answerOf(bodyOf(1 << 10)), 32},
		{"large answer", get, "", answerOf(bodyOf(200 << 10)), 1},
		{"chunked answer", get, "", chunkedAnswer(bodyOf(700), bodyOf(5000), end), 1},
		{"post", post(2 << 10), bodyOf(2 << 10), answerOf(end), 1},
		{"post of 16 KiB", post(16 << 10), bodyOf(16 << 10), answerOf(end), 1},
		{"post of 16 KiB, 8 at once", post(16 << 10), bodyOf(16 << 10), answerOf(end), 8},
		{"post of unknown length", requestFields("POST", "/upload"), bodyOf(4 << 10), answerOf(end), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newFixedUpstream(t, c.answer, nil, "\r\n\r\n", end, end+"\r\n0\r\n\r\n")
			if c.body != "" {
				u.ends = u.ends[1:] // its head is not the whole
			}
			g := newGate(t, h2Config(u.addr(), "[h2c]"))
			client := newFixedH2(t, g.addr, c.body, c.fields...)
			if err := client.exchange(warmRequests, c.atOnce); err != nil {
				t.Fatal(err)
			}
			exchange := func(n int) error { return client.exchange(n, c.atOnce) }
			if per := mallocs(t, countedRequests, exchange); per >= allocsPerRequest {
				t.Errorf("%.4f allocations a request, want less than %v", per, allocsPerRequest)
			}
		})
	}
}
