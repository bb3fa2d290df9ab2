package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// badAnswer is what an upstream says instead of an answer.
type badAnswer struct {
	name string
	say  func(c *scriptedConn, id uint32)
	all  bool // it is an error of the connection: all that is under way on it fails
	// The reset or GOAWAY that tells the upstream; "": PROTOCOL_ERROR.
	code string
}

// head is an answer that is whole with its head.
func head(fields ...string) func(c *scriptedConn, id uint32) {
	return func(c *scriptedConn, id uint32) { c.headers(id, true, fields...) }
}

// body is an answer with a body, and trailers if there are any.
func body(text string, trailers []string, fields ...string) func(c *scriptedConn, id uint32) {
	return func(c *scriptedConn, id uint32) {
		c.headers(id, false, fields...)
		_ = c.framer.WriteData(id, trailers == nil, []byte(text))
		if trailers != nil {
			c.headers(id, true, trailers...)
		}
	}
}

// onStream is any frame on the request's stream.
func onStream(kind xhttp2.FrameType, flags xhttp2.Flags, payload string) func(c *scriptedConn, id uint32) {
	return func(c *scriptedConn, id uint32) { _ = c.framer.WriteRawFrame(kind, flags, id, []byte(payload)) }
}

// onConnection is onStream for what must not be on a stream.
func onConnection(kind xhttp2.FrameType, flags xhttp2.Flags, payload string) func(c *scriptedConn, id uint32) {
	return func(c *scriptedConn, _ uint32) { _ = c.framer.WriteRawFrame(kind, flags, 0, []byte(payload)) }
}

func interims(n int, status string) func(c *scriptedConn, id uint32) {
	return func(c *scriptedConn, id uint32) {
		for range n {
			c.headers(id, false, ":status", status, "link", "</a>")
		}
		c.headers(id, true, ":status", "200")
	}
}

func badAnswers() []badAnswer {
	const ok = xhttp2.FlagHeadersEndHeaders
	ended := func(c *scriptedConn, id uint32) { _ = c.framer.WriteData(id, true, []byte("x")) }
	return []badAnswer{
		{name: "name in upper case", say: head(":status", "200", "X-Upper", "a")},
		{name: "name with a space", say: head(":status", "200", "x y", "a")},
		{name: "name with a colon", say: head(":status", "200", "x:y", "a")},
		{name: "empty name", say: head(":status", "200", "", "a")},
		{name: "value with a line end", say: head(":status", "200", "x", "a\r\nb: c")},
		{name: "value with NUL", say: head(":status", "200", "x", "a\x00")},
		{name: "value with white space around", say: head(":status", "200", "x", " a")},
		{name: "connection", say: head(":status", "200", "connection", "close")},
		{name: "keep-alive", say: head(":status", "200", "keep-alive", "timeout=5")},
		{name: "transfer-encoding", say: head(":status", "200", "transfer-encoding", "chunked")},
		{name: "upgrade", say: head(":status", "200", "upgrade", "h2c")},
		{name: "no status", say: head("x", "y")},
		{name: "no field at all", say: head()},
		{name: "two statuses", say: head(":status", "200", ":status", "204")},
		{name: "late status", say: head("x", "y", ":status", "200")},
		{name: "status of two digits", say: head(":status", "20")},
		{name: "status of letters", say: head(":status", "2xx")},
		{name: "status 600", say: head(":status", "600")},
		{name: "pseudo-field of requests", say: head(":status", "200", ":path", "/")},
		{name: "unknown pseudo-field", say: head(":status", "200", ":what", "x")},
		{name: "101", say: head(":status", "101")},
		{name: "101 that goes on", say: func(c *scriptedConn, id uint32) { c.headers(id, false, ":status", "101") }},
		{name: "interim answer that ends", say: head(":status", "103")},
		{name: "17 interim answers", say: interims(17, "103"), code: "CANCEL"},
		{name: "17 answers of 100", say: interims(17, "100"), code: "CANCEL"},
		{name: "two lengths", say: body("x", nil, ":status", "200", "content-length", "1", "content-length", "1")},
		{name: "length of words", say: body("x", nil, ":status", "200", "content-length", "one")},
		{name: "negative length", say: body("x", nil, ":status", "200", "content-length", "-1")},
		{name: "204 with a length", say: head(":status", "204", "content-length", "5")},
		{name: "too much DATA", say: body("12345", nil, ":status", "200", "content-length", "4")},
		{name: "too little DATA", say: body("123", nil, ":status", "200", "content-length", "4")},
		{name: "no DATA", say: head(":status", "200", "content-length", "4")},
		{name: "too little before trailers", say: body("123", []string{"x", "y"}, ":status", "200", "content-length", "4")},
		{name: "DATA before the head", say: func(c *scriptedConn, id uint32) {
			_ = c.framer.WriteData(id, false, []byte("x"))
			c.answer(id, smallBody)
		}},
		{name: "DATA instead of a head", say: ended},
		{name: "DATA after an interim answer", say: func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "103")
			ended(c, id)
		}},
		{name: "trailers with a pseudo-field", say: body("x", []string{":status", "200"}, ":status", "200")},
		{name: "trailers in upper case", say: body("x", []string{"X-Sum", "1"}, ":status", "200")},
		{name: "trailers with a length", say: body("x", []string{"content-length", "1"}, ":status", "200")},
		{name: "trailers that do not end", say: func(c *scriptedConn, id uint32) {
			c.headers(id, false, ":status", "200")
			c.headers(id, false, "x", "y")
		}},
		{name: "head of 60 KiB", say: head(":status", "200", "x", strings.Repeat("v", 60<<10))},
		{name: "600 fields", say: head(append([]string{":status", "200"}, slices.Repeat([]string{"x", "y"}, 600)...)...)},
		{name: "window of nothing", say: onStream(xhttp2.FrameWindowUpdate, 0, "\x00\x00\x00\x00")},
		{name: "window beyond its bound", say: onStream(xhttp2.FrameWindowUpdate, 0, "\x7f\xff\xff\xff"), code: "FLOW_CONTROL_ERROR"},

		{name: "bad HPACK", all: true, code: "COMPRESSION_ERROR", say: onStream(xhttp2.FrameHeaders, ok, "\xff\xff\xff\xff\xff")},
		{name: "index that was not filled", all: true, code: "COMPRESSION_ERROR", say: onStream(xhttp2.FrameHeaders, ok, "\xff\x20")},
		{name: "PUSH_PROMISE", all: true, say: onStream(xhttp2.FramePushPromise, xhttp2.FlagPushPromiseEndHeaders, "\x00\x00\x00\x02\x88")},
		{name: "stream of the upstream's own", all: true, say: func(c *scriptedConn, _ uint32) { c.headers(2, true, ":status", "200") }},
		{name: "stream that nobody has opened", all: true, say: func(c *scriptedConn, id uint32) { c.headers(id+100, true, ":status", "200") }},
		{name: "DATA on a stream that nobody has opened", all: true, say: func(c *scriptedConn, id uint32) { ended(c, id+100) }},
		{name: "reset of a stream that nobody has opened", all: true, say: func(c *scriptedConn, id uint32) { _ = c.framer.WriteRSTStream(id+100, 0) }},
		{name: "interrupted header block", all: true, say: func(c *scriptedConn, id uint32) {
			_ = c.framer.WriteRawFrame(xhttp2.FrameHeaders, 0, id, []byte("\x88"))
			_ = c.framer.WritePing(false, [8]byte{})
		}},
		{name: "CONTINUATION of nothing", all: true, say: onStream(xhttp2.FrameContinuation, ok, "\x88")},
		{name: "padding that is longer than its frame", all: true, say: onStream(xhttp2.FrameData, xhttp2.FlagDataPadded, "\x05x")},
		{name: "frame that is too long", all: true, code: "FRAME_SIZE_ERROR", say: onStream(xhttp2.FrameData, 0, strings.Repeat("x", 16<<10+1))},
		{name: "short PING", all: true, code: "FRAME_SIZE_ERROR", say: onConnection(xhttp2.FramePing, 0, "short")},
		{name: "window of nothing, of the connection", all: true, say: onConnection(xhttp2.FrameWindowUpdate, 0, "\x00\x00\x00\x00")},
		{name: "leave to push", all: true, say: onConnection(xhttp2.FrameSettings, 0, "\x00\x02\x00\x00\x00\x01")},
		{name: "window beyond its bound, of all", all: true, code: "FLOW_CONTROL_ERROR",
			say: onConnection(xhttp2.FrameSettings, 0, "\x00\x04\xff\xff\xff\xff")},
		{name: "frames that are too short", all: true, say: onConnection(xhttp2.FrameSettings, 0, "\x00\x05\x00\x00\x00\x01")},
	}
}

// TestMuxMalformed has an upstream answer what no answer may be: its client gets 502, and a neighbour on the same connection goes
// on where only the stream is at fault.
func TestMuxMalformed(t *testing.T) {
	for _, bad := range badAnswers() {
		t.Run(bad.name, func(t *testing.T) {
			told := make(chan []string, 1)
			u := newScriptedUpstream(t, func(c *scriptedConn) {
				neighbour := c.request()
				if neighbour == nil {
					return
				}
				r := c.request()
				if r == nil {
					return
				}
				c.atOnce(func() { bad.say(c, r.StreamID) })
				if bad.all {
					told <- c.rest()
					return
				}
				var why []string
				for f := c.next(); f != nil; f = c.next() {
					if reset, ok := f.(*xhttp2.RSTStreamFrame); ok && reset.StreamID == r.StreamID {
						why = append(why, fmt.Sprint("reset ", reset.ErrCode))
						break
					}
				}
				c.answer(neighbour.StreamID, smallBody)
				told <- why
				c.serve()
			})
			g := newMuxGate(t, u.addr, "")
			client := h1Client(t)
			neighbour := make(chan string, 1)
			go func() { neighbour <- g.outcome(client, "GET", "/neighbour", "") }()
			eventually(t, "the neighbour is under way", func() bool { return g.active() == 1 && u.open.Load() == 1 })
			g.want(client, "GET", "/bad", "", "502 bad_response")
			want, code, next := okSmall, "reset PROTOCOL_ERROR", int64(1)
			if bad.code != "" {
				code = "reset " + bad.code
			}
			if bad.all {
				want, code, next = "502 bad_response", strings.Replace(code, "reset", "GOAWAY", 1), 2
			}
			if got := take(t, "the neighbour's answer", neighbour); got != want {
				t.Errorf("the neighbour: %q, want %q", got, want)
			}
			if why := take(t, "what the upstream was told", told); !slices.Equal(why, []string{code}) {
				t.Errorf("the upstream was told %q, want %q", why, code)
			}
			if !bad.all {
				g.want(client, "GET", "/after", "", okSmall)
			}
			if n := u.accepted.Load(); n > next {
				t.Errorf("%d connections", n)
			}
		})
	}
}
