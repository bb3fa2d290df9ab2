package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// switching starts a host with one endpoint that answers the request of each connection with 101 and then does what f does.
func switching(t *testing.T, f func(c net.Conn)) *host {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err = http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
			}
			if err != nil {
				t.Error(err)
			}
			f(c)
			_ = c.Close()
		}
	})
	h := newHost(t, 1, defaults(), memberOf(ln, 1))
	t.Cleanup(func() {
		_ = ln.Close()
		work.Wait()
	})
	return h
}

// unkept waits until no connection to the endpoint is open, and fails if one was ever kept for another exchange.
func (h *host) unkept() {
	h.t.Helper()
	e := h.upstream.Endpoints()[0]
	h.eventually("the end of the tunnel's connection", func() bool {
		kept := 0
		h.on(0, func() { kept = e.Idle(0) })
		if kept > 0 {
			h.t.Fatal("a connection that was a tunnel is kept for other exchanges")
		}
		return e.Open() == 0
	})
}

const upgradeRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"

// The client ends its way, and is gone when the upstream's last words come. Of the upstream's connection one way has not ended then.
func TestTunnelWhoseClientTakesNothingMore(t *testing.T) {
	gone := make(chan struct{})
	h := switching(t, func(c net.Conn) {
		_, _ = io.ReadAll(c) // until the client's end came through
		<-gone
		for range 2 { // the first is answered with a reset
			_, _ = io.WriteString(c, "words")
			time.Sleep(50 * time.Millisecond)
		}
		_, _ = io.ReadAll(c)
		time.Sleep(200 * time.Millisecond)
	})
	c := h.dial(0)
	c.send(upgradeRequest)
	if head, err := http.ReadResponse(c.reader, nil); err != nil || head.StatusCode != 101 {
		t.Fatalf("got %v, %v", head, err)
	}
	_ = c.conn.Close()
	close(gone)
	h.unkept()
}

// leaving makes the client leave before it is answered, when its gateway can learn of it only by a write.
type leaving struct{ c *client }

func (l *leaving) OnResponse(*core.Exchange) {
	_ = l.c.conn.SetLinger(0)
	_ = l.c.conn.Close()
	time.Sleep(20 * time.Millisecond)
}

// An upstream has switched protocols, of which the client cannot be told any more.
func TestTunnelThatNeverOpens(t *testing.T) {
	release := make(chan struct{})
	h := switching(t, func(net.Conn) { <-release })
	c := h.dial(0)
	h.on(0, func() { h.route.Chain = core.Chain{{Name: "leaving", Response: &leaving{c}}} })
	c.send(upgradeRequest)
	time.AfterFunc(200*time.Millisecond, func() { close(release) })
	h.unkept()
}
