package server

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An upstream that answers while it still reads gets the whole request, even if it says at once that it will close: what it
// sends back as it comes arrives whole, through every protocol.
func TestAnswerDuringUpload(t *testing.T) {
	const size = 3 << 20 // more than what an upstream reads after its answer if it has not announced to go on
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Connection", "close")
		_, _ = io.Copy(w, r.Body)
	}))
	defer s.Close()
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i * i >> 7)
	}
	for name, listener := range map[string]string{"plain": "", "TLS": ", tls: { certificates: [{ cert: FOLDER/a.pem, key: FOLDER/a.key }] }"} {
		g := run(t, strings.NewReplacer("LISTENER", listener, "UPSTREAM", strings.TrimPrefix(s.URL, "http://")).Replace(
			strings.ReplaceAll(`
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0"LISTENER } }
upstreams: { up: { endpoints: ["UPSTREAM"] } }
routes: [{ match: "/*", to: up }]
`, "LISTENER", strings.ReplaceAll(listener, "FOLDER", folder))))
		for _, http2 := range []bool{false, true} {
			if http2 && name == "plain" {
				continue
			}
			scheme := "http"
			if name == "TLS" {
				scheme = "https"
			}
			r, got, err := ask(a.client(g.addr, http2, nil), scheme+"://a.test/", body)
			if err != nil {
				t.Fatalf("%s, HTTP/2 %v: %v", name, http2, err)
			}
			if r.StatusCode != 200 || !bytes.Equal(got, body) {
				t.Errorf("%s, HTTP/2 %v: %d, %d bytes", name, http2, r.StatusCode, len(got))
			}
		}
		g.stop()
	}
}

// An answer without a length that an upstream aborts while it is still sent the request is no whole one, though the kernel tells of the abort
// once, and it is the upload that hears of it.
func TestAbortedAnswerDuringUpload(t *testing.T) {
	read := make(chan struct{}, 1)
	addr := serveConns(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\npart")
		soon(read)
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	g := newGate(t, h2Config(addr, "[h1, h2c]"))
	for name, client := range map[string]*http.Client{"h1": newH1Client(t), "h2c": newH2Client(t)} {
		for range 5 {
			res, err := client.Post("http://"+g.addr+"/upload", "", reader{&pattern{size: 1 << 30}})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "part" {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
			read <- struct{}{}
			if rest, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("%s: the answer looks whole, with %d bytes more", name, len(rest))
			}
			_ = res.Body.Close()
		}
	}
}
