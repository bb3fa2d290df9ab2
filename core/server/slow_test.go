package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// slowConfig asks for 1000 bytes a second, and forgives 300 ms.
func slowConfig(upstream string) string {
	return strings.Replace(h2Config(upstream, "[h1, h2c]"), "protocols:", "limits: { min_rate: { receive: 1000B/s, send: 1000B/s, grace: 300ms } }\n    protocols:", 1)
}

// slowPace is what the slow clients of these tests do: one byte each time.
const slowPace = 30 * time.Millisecond

// A client that sends or takes a byte now and then is cut off although each comes in time; one that keeps the rate is not.
func TestMinRate(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, slowConfig(u.addr))
	within := func(t *testing.T, f func()) {
		t.Helper()
		start := time.Now()
		f()
		if took := time.Since(start); took < 250*time.Millisecond || took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	refused := func(t *testing.T, first, byteByByte string) {
		c := dialSlow(t, g.addr)
		within(t, func() {
			go c.drip(first, byteByByte, slowPace)
			if got := c.status(); got != 408 {
				t.Errorf("status %d, want 408", got)
			}
		})
	}
	t.Run("head", func(t *testing.T) {
		refused(t, "GET /small HTTP/1.1\r\nHost: a\r\nX: ", strings.Repeat("x", 1000))
	})
	t.Run("body", func(t *testing.T) {
		refused(t, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 1000))
	})
	t.Run("chunks", func(t *testing.T) {
		refused(t, "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 1000))
	})
	t.Run("body that keeps the rate", func(t *testing.T) {
		patient := newGate(t, strings.Replace(slowConfig(u.addr), "grace: 300ms", "grace: 2s", 1)) // no pause of a busy machine is as long
		c := dialSlow(t, patient.addr)
		const parts = 80 // which take longer than the grace
		_, _ = fmt.Fprintf(c, "POST /upload?%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 100*parts, 100*parts)
		go func() {
			for i := range parts {
				time.Sleep(slowPace)
				_, _ = c.Write(patternText[100*i : 100*i+100])
			}
		}()
		if got := c.status(); got != 200 {
			t.Errorf("status %d", got)
		}
	})
	t.Run("answer", func(t *testing.T) {
		c := dialSlow(t, g.addr)
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(4096)
		_, _ = io.WriteString(c, "GET /download/16777216 HTTP/1.1\r\nHost: a\r\n\r\n")
		within(t, func() {
			for b := make([]byte, 1); ; time.Sleep(slowPace) {
				if _, err := c.Read(b); err != nil {
					break
				}
				if g.active() == 0 {
					break // it has given up; what the kernels hold may still be read
				}
			}
		})
	})
	t.Run("HTTP/2 body", func(t *testing.T) {
		c := dialRawH2(t, g.addr)
		within(t, func() {
			if err := c.headers(1, false, requestFields("POST", "/upload")...); err != nil {
				t.Fatal(err)
			}
			framer := xhttp2.NewFramer(c.conn, nil) // that of c is in use
			go func() {
				for framer.WriteData(1, false, []byte("x")) == nil {
					time.Sleep(slowPace)
				}
			}()
			if got, err := c.outcome(1); !strings.HasPrefix(got, "408") {
				t.Errorf("%q, %v; want 408", got, err)
			}
		})
	})
	t.Run("HTTP/2 window", func(t *testing.T) {
		c := dialRawH2(t, g.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
		within(t, func() {
			if err := c.get(1, "/download/100000"); err != nil {
				t.Fatal(err)
			}
			framer := xhttp2.NewFramer(c.conn, nil)
			go func() {
				for framer.WriteWindowUpdate(1, 1) == nil {
					time.Sleep(slowPace)
				}
			}()
			for {
				f, err := c.framer.ReadFrame()
				if err != nil || f.Header().StreamID == 1 && f.Header().Flags.Has(xhttp2.FlagDataEndStream) {
					t.Fatalf("%v, %v; want a reset", f, err)
				}
				if f, ok := f.(*xhttp2.RSTStreamFrame); ok && f.ErrCode == xhttp2.ErrCodeCancel {
					break
				}
			}
		})
	})
	eventually(t, "the upstreams are free", func() bool { return g.active() == 0 })
}

// A slow upstream is not the client's fault.
func TestMinRateIsOfClients(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, slowConfig(u.addr))
	for _, client := range []*http.Client{{}, newH2Client(t)} {
		resp, err := client.Get("http://" + g.addr + "/drip")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b := make([]byte, 1)
		if _, err := resp.Body.Read(b); err != nil {
			t.Error(err)
		}
		_ = resp.Body.Close()
	}
}

type slowClient struct{ net.Conn }

func dialSlow(t *testing.T, addr string) *slowClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &slowClient{c}
}

// drip sends first, and then a byte now and then as long as the peer takes them.
func (c *slowClient) drip(first, byteByByte string, pace time.Duration) {
	_, err := io.WriteString(c, first)
	for i := 0; i < len(byteByByte) && err == nil; i++ {
		time.Sleep(pace)
		_, err = io.WriteString(c, byteByByte[i:i+1])
	}
}

// status is that of the answer; 0: there is none.
func (c *slowClient) status() int {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
