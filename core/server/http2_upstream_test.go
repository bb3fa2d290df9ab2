package server

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// pattern is a body of which each byte is known: random ones that come again after so many that no size is a multiple of it.
type pattern struct{ at, size int64 }

const patternBytes = 65521

var patternText = func() (b [patternBytes]byte) {
	_, _ = rand.NewChaCha8([32]byte{}).Read(b[:])
	return b
}()

func (p *pattern) Read(b []byte) (n int, err error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	n = copy(b[:min(int64(len(b)), p.size-p.at)], patternText[p.at%patternBytes:])
	p.at += int64(n)
	return n, nil
}

// checkPattern reads all of r, which must be so many bytes of the pattern.
func checkPattern(r io.Reader, size int64) error {
	buf, at := make([]byte, 16<<10), int64(0)
	for {
		n, err := r.Read(buf)
		for got := buf[:n]; len(got) > 0; {
			want := patternText[at%patternBytes:]
			want = want[:min(len(want), len(got))]
			if !bytes.Equal(got[:len(want)], want) {
				return fmt.Errorf("bytes %d to %d are wrong", at, at+int64(len(want)))
			}
			got, at = got[len(want):], at+int64(len(want))
		}
		switch {
		case err == io.EOF && at == size:
			return nil
		case err != nil:
			return fmt.Errorf("%d of %d bytes: %w", at, size, err)
		}
	}
}

// manyUpstream is an upstream of both protocols that does what the path says.
type manyUpstream struct {
	addr   string
	server http.Server
	open   atomic.Int64 // connections
	seen   atomic.Int64 // requests
	held   atomic.Int64 // requests that /hold holds now
	let    chan struct{}
	end    chan struct{}
}

func newManyUpstream(t testing.TB) *manyUpstream {
	t.Helper()
	u := &manyUpstream{let: make(chan struct{}), end: make(chan struct{})}
	mux := http.NewServeMux()
	for path, f := range map[string]http.HandlerFunc{
		"/small": small, "/status/{code}": status, "/hints": hints, "/download/{size}": download, "/upload": upload, "/both/{size}": both,
		"/trailers": trailers, "/large": large, "/early": early, "/break/{how}": breakOff, "/hold": u.hold, "/empty": empty,
		"/whole": whole, "/drip": u.drip, "/socket": echoing2,
	} {
		mux.HandleFunc(path, f)
	}
	u.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.seen.Add(1)
		mux.ServeHTTP(w, r)
	})
	u.server.MaxHeaderBytes = 1 << 20
	u.server.Protocols = bothProtocols()
	u.server.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			u.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			u.open.Add(-1)
		}
	}
	u.addr = serveHTTP(t, &u.server)
	t.Cleanup(func() { close(u.end) })
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
		_, _ = io.Copy(w, &pattern{size, size + 1}) // without it the answer is not whole
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

// whole answers when it has read the whole body.
func whole(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		_, _ = io.Copy(w, &pattern{size: 1 << 10})
	}
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

// drip sends the start of its answer, and the rest when it is let to.
func (u *manyUpstream) drip(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(w, &pattern{size: dripBytes})
	_ = http.NewResponseController(w).Flush()
	u.hold(w, r)
}

// dripBytes is the start of an answer.
const dripBytes = 1000

// hold answers when it is let to, or ends when the connection does.
func (u *manyUpstream) hold(w http.ResponseWriter, r *http.Request) {
	u.held.Add(1)
	defer u.held.Add(-1)
	select {
	case <-u.let:
		_, _ = io.WriteString(w, smallBody)
	case <-r.Context().Done():
	case <-u.end:
	}
}

// echoUpstream keeps what it gets: of whole requests the line, the fields and the body.
type echoUpstream struct {
	addr string
	mu   sync.Mutex
	got  []string
}

func newEchoUpstream(t testing.TB) *echoUpstream {
	t.Helper()
	u := &echoUpstream{}
	u.addr = serveHTTP(t, &http.Server{Handler: u, DisableGeneralOptionsHandler: true})
	return u
}

func (u *echoUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.Header.Get("X-Request-Id") != "mine" {
		r.Header.Del("X-Request-Id")
	}
	u.mu.Lock()
	u.got = append(u.got, fmt.Sprintf("%s %s %s %v %q %d %v", r.Method, r.RequestURI, r.Host, r.Header, body, r.ContentLength, r.TransferEncoding))
	u.mu.Unlock()
	_, _ = io.WriteString(w, smallBody)
}

// take gives the requests since it was last called.
func (u *echoUpstream) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	got := u.got
	u.got = nil
	return got
}
