package http2

import (
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// fuzzOwner is told of a connection's end.
type fuzzOwner struct{ changed, closed int }

func (o *fuzzOwner) Changed()                   { o.changed++ }
func (o *fuzzOwner) Closed()                    { o.closed++ }
func (o *fuzzOwner) IdleTimeout() time.Duration { return time.Second }
func (o *fuzzOwner) String() string             { return "fuzzed upstream" }

// fuzzClient is who asked: it takes interim answers.
type fuzzClient struct{ interims int }

func (d *fuzzClient) Interim(*core.Exchange) *core.Error { d.interims++; return nil }
func (d *fuzzClient) Respond(*core.Exchange) *core.Error { return nil }
func (d *fuzzClient) Conn() *loop.Conn                   { return nil }
func (d *fuzzClient) Buffered() []byte                   { return nil }

// fuzzBody is a request body in pieces, each of which is waited for unless ready.
type fuzzBody struct {
	loop  *loop.Loop
	left  int
	ready bool
	buf   []byte
}

func (b *fuzzBody) Ready() bool { return b.ready }

func (b *fuzzBody) Next() (core.Piece, error) {
	b.Release()
	if b.left == 0 {
		return core.Piece{}, io.EOF
	}
	if !b.ready {
		b.loop.Yield()
	}
	n := min(b.left, 30_000)
	b.left -= n
	b.buf = b.loop.Borrow()
	return core.Piece{Buf: b.buf, Start: 1000, End: 1000 + n, Last: b.left == 0}, nil
}

func (b *fuzzBody) Release() {
	if b.buf != nil {
		b.loop.Return(b.buf)
		b.buf = nil
	}
}

// fuzzedClient is one loop's client with requests on a connection whose other end says anything.
type fuzzedClient struct {
	loop   *loop.Loop
	worker *core.Worker
	client *Client
	blocks map[string][]byte // heads of requests, by method
	whole  map[*byte]bool    // the loop's buffers, all of them kept
	small  [len(bodySizes)]map[*byte]bool
	done   int // of the requests of a run
	owner  *fuzzOwner
	conn   *ClientConn
}

func newFuzzedClient(f *testing.F, panicked func()) *fuzzedClient {
	l, err := loop.New(loop.Options{Log: slog.New(slog.DiscardHandler), Panicked: panicked})
	if err != nil {
		f.Fatal(err)
	}
	u := &fuzzedClient{loop: l, blocks: map[string][]byte{}}
	for _, method := range []string{"GET", "HEAD", "POST"} {
		w := &sliceWriter{}
		e := hpack.NewEncoder(w)
		for _, h := range [][2]string{{":method", method}, {":scheme", "http"}, {":path", "/a?b"}, {":authority", "a"}, {"x", "y"}, {"cookie", "c=d"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		u.blocks[method] = w.b
	}
	r := &reader{}
	r.route = &core.Route{Name: "all", Action: r, BodyLimit: -1}
	u.worker = core.NewGateway(&core.Snapshot{Router: r}, r).NewWorker(l)
	u.client = NewClient(u.worker)
	l.Start()
	f.Cleanup(func() { _ = l.Stop() })
	_ = l.Do(time.Second, func() { // so many that none need ever be made beside them
		u.whole = u.kept()
		for i, size := range bodySizes {
			u.small[i] = map[*byte]bool{}
			for range maxBodies / 2 {
				b := make([]byte, size)
				u.small[i][unsafe.SliceData(b)] = true
				u.client.bodies[i] = append(u.client.bodies[i], b)
			}
		}
	})
	return u
}

// kept is which whole buffers the loop keeps, as many as it may.
func (u *fuzzedClient) kept() map[*byte]bool {
	const most = 32
	var all [][]byte
	for range most {
		all = append(all, u.loop.Borrow())
	}
	kept := map[*byte]bool{}
	for _, b := range all {
		kept[unsafe.SliceData(b)] = true
		u.loop.Return(b)
	}
	return kept
}

// leaked tells what was not given back, on the loop.
func (u *fuzzedClient) leaked() string {
	for b := range u.kept() {
		if !u.whole[b] {
			return "a whole buffer"
		}
	}
	for i, list := range u.client.bodies {
		n := 0
		for _, b := range list {
			if u.small[i][unsafe.SliceData(b)] {
				n++
			}
		}
		if n != len(u.small[i]) {
			return "a small buffer"
		}
	}
	return ""
}

// ask makes a request with so much of a body, in a task of its own.
func (u *fuzzedClient) ask(method string, size int, ready bool) {
	u.loop.Go(func() {
		x := u.worker.Begin()
		defer func() {
			u.worker.End(x)
			u.done++
		}()
		m := &x.Request
		d := NewDecoder(defaultTableBytes)
		if _, err := d.DecodeRequest(m, u.blocks[method], &Limits{HeaderBytes: 8 << 10, Headers: 50}); err != nil {
			panic(err)
		}
		_ = m.NormalizeTarget(false)
		x.Downstream, x.Times.Start, x.ReplayLimit = &fuzzClient{}, u.loop.Now(), 1<<10
		x.Deadline = u.loop.Now() + int64(3*time.Second)
		if size > 0 {
			b := &fuzzBody{loop: u.loop, left: size, ready: ready}
			defer b.Release()
			m.Body, m.Chunked = b, true
		}
		if u.conn.Room() == 0 {
			return
		}
		t := u.conn.Open()
		if err := t.Do(x, int64(time.Second), int64(time.Second)); err == nil && x.Response.Body != nil {
			for {
				p, err := x.Response.Body.Next()
				if err != nil || p.Last {
					break
				}
			}
		}
		t.Finish(x)
	})
}

// run connects, makes requests, and answers with data in two parts. It returns when all is over.
func (u *fuzzedClient) run(t *testing.T, data []byte) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[1]), "upstream")
	peer, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	const requests = 5
	u.do(t, func() {
		raw, err := u.loop.Adopt(fds[0], nil)
		if err != nil {
			t.Error(err)
			return
		}
		u.done, u.owner = 0, &fuzzOwner{}
		u.conn = u.client.NewConn(raw, u.owner, ClientOptions{Scheme: "http", Streams: 10, KeepAlive: KeepAlive{time.Millisecond, time.Second}})
		u.ask("GET", 0, false)
		u.ask("HEAD", 0, false)
		u.ask("POST", 100, true)
		u.ask("POST", 100_000, true)
		u.ask("POST", 200_000, false)
	})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, peer)
	}()
	_ = peer.SetWriteDeadline(time.Now().Add(time.Second))
	half := len(data) / 2
	_, _ = peer.Write(data[:half])
	time.Sleep(200 * time.Microsecond) // so that some of it is under way
	_, _ = peer.Write(data[half:])
	time.Sleep(200 * time.Microsecond)
	_ = peer.Close()
	<-drained
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		over := false
		u.do(t, func() { over = u.done == requests && u.conn.closed && !u.conn.out.waits() })
		if over {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d requests have ended; the connection: closed %v", u.done, requests, u.conn.closed)
		}
	}
	u.do(t, func() {
		c := u.conn
		if n := u.worker.Active(); n != 0 || c.running != 0 || len(c.streams) != 0 || len(c.blocked) != 0 || u.owner.closed != 1 {
			t.Errorf("%d exchanges, %d streams of which %d open and %d blocked are left; closed %d times", n, c.running, len(c.streams), len(c.blocked), u.owner.closed)
		}
		if c.held != nil || c.out.buf != nil {
			t.Error("the connection keeps buffers")
		}
		if what := u.leaked(); what != "" {
			t.Errorf("%s was not given back", what)
		}
	})
}

func (u *fuzzedClient) do(t *testing.T, f func()) {
	t.Helper()
	if err := u.loop.Do(5*time.Second, f); err != nil {
		t.Fatal(err)
	}
}

// upstreamSeeds are answers, good and bad, to the streams 3, 5, 7, 9 and 11.
func upstreamSeeds() (seeds []string) {
	frame := func(t FrameType, flags Flags, stream uint32, payload string) string {
		return string(AppendFrameHeader(nil, FrameHeader{Length: uint32(len(payload)), Type: t, Flags: flags, Stream: stream})) + payload
	}
	const head, whole = FlagEndHeaders, FlagEndHeaders | FlagEndStream
	settings := frame(FrameSettings, 0, 0, "")
	ok := "\x88"               // :status 200
	ok4 := "\x88\x0f\x0d\x014" // content-length: 4
	hints := "\x08\x03103"     // :status 103
	windows := frame(FrameWindowUpdate, 0, 0, "\x00\x10\x00\x00") + frame(FrameWindowUpdate, 0, 9, "\x00\x10\x00\x00") + frame(FrameWindowUpdate, 0, 11, "\x00\x10\x00\x00")
	all := ""
	for id := uint32(3); id <= 11; id += 2 {
		all += frame(FrameHeaders, head, id, ok) + frame(FrameData, FlagEndStream, id, "body")
	}
	return []string{
		"", "HTTP/1.1 400 Bad Request\r\n\r\n", settings, settings + all, settings + windows + all,
		settings + frame(FrameHeaders, head, 3, ok4) + frame(FrameData, 0, 3, "bo") + frame(FrameData, FlagEndStream, 3, "dy"),
		settings + frame(FrameHeaders, head, 3, ok4) + frame(FrameData, FlagEndStream, 3, "body that is too long"),
		settings + frame(FrameHeaders, head, 7, hints) + frame(FrameHeaders, whole, 7, ok),
		settings + frame(FrameHeaders, whole, 5, ok4) + frame(FrameHeaders, whole, 3, ok4),
		settings + frame(FrameHeaders, head, 3, ok) + frame(FrameHeaders, whole, 3, "\x00\x01a\x01b"),
		settings + frame(FrameResetStream, 0, 9, "\x00\x00\x00\x07") + frame(FrameResetStream, 0, 11, "\x00\x00\x00\x00"),
		settings + frame(FrameHeaders, whole, 11, ok) + frame(FrameResetStream, 0, 11, "\x00\x00\x00\x00"),
		settings + frame(FrameGoAway, 0, 0, "\x00\x00\x00\x05\x00\x00\x00\x00") + all,
		settings + frame(FrameHeaders, 0, 3, ok) + frame(FrameContinuation, head, 3, "\x00\x01a\x01b"),
		settings + frame(FramePing, 0, 0, "12345678") + frame(FramePriorityUpdate, 0, 0, "\x00\x00\x00\x03u=0"),
		frame(FrameSettings, 0, 0, "\x00\x04\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00") + all,
		frame(FrameSettings, 0, 0, "\x00\x04\x7f\xff\xff\xff") + windows, settings + frame(FrameHeaders, head, 3, "\xff\xff\xff"),
		settings + frame(0xee, 0, 0, string(make([]byte, 200))) + // in the first part: the rest comes at once
			frame(FrameHeaders, head, 3, ok) + frame(FrameData, 0, 3, "lost") + frame(FrameResetStream, 0, 3, "\x00\x00\x00\x02"),
		settings + frame(FrameHeaders, head, 3, ok) + frame(FrameData, 0, 3, "the start")[:12],
		settings + frame(FrameData, FlagPadded, 3, "\x02xyz") + frame(FrameHeaders, head|FlagPadded, 5, "\x01\x88x"),
	}
}

// FuzzUpstream answers requests that are under way, with and without bodies, with whatever there is: nothing panics, every request
// ends, and nothing that was borrowed is kept after the connection's end.
func FuzzUpstream(f *testing.F) {
	for _, seed := range upstreamSeeds() {
		f.Add([]byte(seed))
	}
	var panics atomic.Int64
	u := newFuzzedClient(f, func() { panics.Add(1) })
	f.Fuzz(func(t *testing.T, data []byte) {
		u.run(t, slices.Clone(data))
		if panics.Load() > 0 {
			t.Fatal("a task panicked")
		}
	})
}
