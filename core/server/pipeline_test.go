package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestPipelinedUploads sends long requests without waiting for answers: what is read of one behind the end of the other, which
// may be more than a buffer takes, is not lost.
func TestPipelinedUploads(t *testing.T) {
	u := newManyUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h1]"))
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	const size, requests = 300_000, 20
	body, _ := io.ReadAll(&pattern{size: size})
	go func() {
		for i := range requests {
			head := fmt.Sprintf("POST /upload?%d HTTP/1.1\r\nHost: a\r\n", size)
			if i%2 == 0 {
				_, err = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, size, body)
			} else {
				_, err = fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, size, body)
			}
			if err != nil {
				return
			}
		}
	}()
	answers := bufio.NewReader(conn)
	for i := range requests {
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("answer %d: %s %q %v", i, res.Status, text, err)
		}
	}
}
