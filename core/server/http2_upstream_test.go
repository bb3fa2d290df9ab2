package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pattern is a body of which each byte is known.
type pattern struct{ at, size int64 }

func patternByte(i int64) byte { return byte(i*7 ^ i>>8 ^ i>>16) }

func (p *pattern) Read(b []byte) (n int, err error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	for n < len(b) && p.at < p.size {
		b[n] = patternByte(p.at)
		n++
		p.at++
	}
	return n, nil
}

// checkPattern reads all of r, which must be so many bytes of the pattern.
func checkPattern(r io.Reader, size int64) error {
	buf, at := make([]byte, 16<<10), int64(0)
	for {
		n, err := r.Read(buf)
		for i, c := range buf[:n] {
			if c != patternByte(at+int64(i)) {
				return fmt.Errorf("byte %d is wrong", at+int64(i))
			}
		}
		at += int64(n)
		switch {
		case err == io.EOF && at == size:
			return nil
		case err != nil:
			return fmt.Errorf("%d of %d bytes: %w", at, size, err)
		}
	}
}

// manyUpstream is an HTTP/1.1 upstream that does what the path says.
type manyUpstream struct {
	addr   string
	server http.Server
	open   atomic.Int64 // connections
	seen   atomic.Int64 // requests
	held   atomic.Int64 // requests that /hold holds now
	let    chan struct{}
}

func newManyUpstream(t testing.TB) *manyUpstream {
	t.Helper()
	u := &manyUpstream{let: make(chan struct{})}
	mux := http.NewServeMux()
	for path, f := range map[string]http.HandlerFunc{
		"/small": small, "/status/{code}": status, "/hints": hints, "/download/{size}": download, "/upload": upload, "/both/{size}": both,
		"/trailers": trailers, "/large": large, "/early": early, "/break/{how}": breakOff, "/hold": u.hold, "/empty": empty,
	} {
		mux.HandleFunc(path, f)
	}
	u.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.seen.Add(1)
		mux.ServeHTTP(w, r)
	})
	u.server.MaxHeaderBytes = 1 << 20
	u.server.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			u.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			u.open.Add(-1)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = u.server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = u.server.Close()
		<-done
	})
	return u
}

const smallBody = "a small answer"

func small(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
	_, _ = io.WriteString(w, smallBody)
}

func status(w http.ResponseWriter, r *http.Request) {
	code, _ := strconv.Atoi(r.PathValue("code"))
	w.WriteHeader(code)
}

func hints(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload")
	w.WriteHeader(http.StatusEarlyHints)
	_, _ = io.WriteString(w, smallBody)
}

func download(w http.ResponseWriter, r *http.Request) {
	size, _ := strconv.ParseInt(r.PathValue("size"), 10, 64)
	if r.URL.RawQuery == "" {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	} else {
		_ = http.NewResponseController(w).Flush() // of unknown length
	}
	_, _ = io.Copy(w, &pattern{size: size})
}

func upload(w http.ResponseWriter, r *http.Request) {
	size, _ := strconv.ParseInt(r.URL.RawQuery, 10, 64)
	if err := checkPattern(r.Body, size); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = fmt.Fprintf(w, "%d %v", r.ContentLength, r.TransferEncoding)
}

// both sends while it receives.
func both(w http.ResponseWriter, r *http.Request) {
	size, _ := strconv.ParseInt(r.PathValue("size"), 10, 64)
	c := http.NewResponseController(w)
	if err := c.EnableFullDuplex(); err != nil {
		return
	}
	received := make(chan error, 1)
	go func() { received <- checkPattern(r.Body, size) }()
	w.Header().Set("Content-Length", strconv.FormatInt(size+1, 10))
	_, _ = io.Copy(w, &pattern{size: size})
	if err := <-received; err == nil {
		_, _ = w.Write([]byte{patternByte(size)}) // without it the answer is not whole
	}
}

func trailers(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Trailer", "X-Sum, X-Echo")
	_, _ = w.Write(body)
	w.Header().Set("X-Sum", strconv.Itoa(len(body)))
	w.Header().Set("X-Echo", r.Trailer.Get("X-Mark"))
}

func large(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Large", r.Header.Get("X-Large"))
}

// early answers before it has read the body.
func early(w http.ResponseWriter, r *http.Request) {
	_, _ = io.ReadFull(r.Body, make([]byte, 1))
	w.WriteHeader(http.StatusRequestEntityTooLarge)
	_, _ = io.WriteString(w, smallBody)
}

func empty(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() }

// breakOff closes the connection in the middle of its answer.
func breakOff(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	head := map[string]string{
		"length":  "Content-Length: 100000\r\n\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n10000\r\n",
		"chunk":   "Transfer-Encoding: chunked\r\n\r\n3e8\r\n",
	}[r.PathValue("how")]
	_, _ = rw.WriteString("HTTP/1.1 200 OK\r\n" + head + strings.Repeat("x", 1000))
	if r.PathValue("how") == "chunk" {
		_, _ = rw.WriteString("\r\n")
	}
	_ = rw.Flush()
}

// hold answers when it is let to, or ends when the connection does.
func (u *manyUpstream) hold(w http.ResponseWriter, r *http.Request) {
	u.held.Add(1)
	defer u.held.Add(-1)
	select {
	case <-u.let:
		_, _ = io.WriteString(w, smallBody)
	case <-r.Context().Done():
	case <-time.After(patience):
	}
}
