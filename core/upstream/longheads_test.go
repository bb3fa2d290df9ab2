package upstream

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Heads that each are within their bound are together longer than a buffer.
func TestLongInterimAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		long := strings.Repeat("x", 40<<10)
		_, _ = c.Read(make([]byte, 1<<10))
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nA: "+long+"\r\n\r\nHTTP/1.1 200 OK\r\nB: "+long+"\r\nContent-Length: 2\r\n\r\nok")
		_, _ = io.ReadAll(c)
		_ = c.Close()
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	h := newHost(t, 1, defaults(), memberOf(ln, 1))
	c := h.dial(0)
	_ = c.conn.SetDeadline(time.Now().Add(patience / 2))
	c.get("/")
	head, err := http.ReadResponse(c.reader, nil)
	if err == nil && head.StatusCode == 103 { // which ReadResponse takes for an answer
		head, err = http.ReadResponse(c.reader, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(head.Body); head.StatusCode != 200 || len(head.Header.Get("B")) != 40<<10 || string(body) != "ok" {
		t.Errorf("got %s %q, %v", head.Status, body, err)
	}
}
