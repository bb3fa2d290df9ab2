package server

import (
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestMuxEndNeedsNoWindow has an upstream open no window beyond that in which a request's body fits to the byte: its end comes all the same,
// also where a mirror takes a copy, and where the request is sent again.
func TestMuxEndNeedsNoWindow(t *testing.T) {
	const window = 1000
	for name, c := range map[string]struct {
		refuse bool
		mirror string
	}{
		"plain":    {},
		"mirrored": {mirror: ", mirror: b"},
		"again":    {refuse: true},
	} {
		t.Run(name, func(t *testing.T) {
			came := make(chan struct{}, 1)
			u := newScriptedUpstream(t, func(s *scriptedConn) {
				for n := 0; ; n++ {
					r := s.request()
					if r == nil {
						return
					}
					for got := 0; ; {
						f := s.next()
						if f == nil {
							return
						}
						d, ok := f.(*xhttp2.DataFrame)
						if !ok {
							continue
						}
						if got += len(d.Data()); c.refuse && n == 0 {
							_ = s.framer.WriteRSTStream(r.StreamID, xhttp2.ErrCodeRefusedStream)
							break
						}
						if got == window && !d.StreamEnded() {
							came <- struct{}{}
						}
						if d.StreamEnded() {
							s.answer(r.StreamID, smallBody)
							break
						}
					}
				}
			}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: window})
			text := muxConfig(`"`+u.addr+`"`, "")
			text = strings.Replace(text, "to: a }", "to: a"+c.mirror+" }", 1)
			text = strings.Replace(text, "upstreams: {", "upstreams: { b: { endpoints: [\"127.0.0.1:1\"] }, ", 1)
			g := newGate(t, text)
			raw := dialRawH2(t, g.addr)
			_ = raw.conn.SetDeadline(time.Now().Add(5 * time.Second))
			_ = raw.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/")
			_ = raw.framer.WriteData(1, false, make([]byte, window))
			take(t, "the body", came)
			time.Sleep(50 * time.Millisecond) // so that the gateway waits for the window before it hears of the end
			_ = raw.framer.WriteData(1, true, nil)
			if got, err := raw.outcome(1); err != nil || !strings.HasPrefix(got, "200 ") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
