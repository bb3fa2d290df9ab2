package http2

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// reader is a whole gateway: one route, whose action reads the request's body and answers with as much.
type reader struct{ route *core.Route }

func (r *reader) Match(*core.Exchange) *core.Route       { return r.route }
func (r *reader) Observe(*core.Exchange)                 {}
func (r *reader) Failed(_ *core.Exchange, _ *core.Error) {}

func (r *reader) Answer(x *core.Exchange) {
	n := 0
	for body := x.Request.Body; body != nil; {
		p, err := body.Next()
		if err != nil {
			x.Fail(core.BodyError(err))
			return
		}
		if n += len(p.Bytes()); p.Last {
			break
		}
	}
	x.Answer(200, "text/plain", string(make([]byte, 1000+n%100_000)))
}

// fuzzPort counts the connections that are open.
type fuzzPort struct {
	settings core.Listener
	open     atomic.Int64
}

func (p *fuzzPort) Settings() *core.Listener { return &p.settings }
func (p *fuzzPort) Draining() bool           { return false }
func (p *fuzzPort) Release(netip.AddrPort)   { p.open.Add(-1) }

// FuzzConnection sends whatever there is to a connection: nothing panics, nothing stays open after the client has gone, and
// every exchange ends.
func FuzzConnection(f *testing.F) {
	var block []byte
	{
		w := &sliceWriter{}
		e := hpack.NewEncoder(w)
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}, {"x", "y"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		block = w.b
	}
	frame := func(t FrameType, flags Flags, stream uint32, payload string) string {
		return string(AppendFrameHeader(nil, FrameHeader{Length: uint32(len(payload)), Type: t, Flags: flags, Stream: stream})) + payload
	}
	settings := frame(FrameSettings, 0, 0, "")
	head := frame(FrameHeaders, FlagEndHeaders, 1, string(block))
	for _, seed := range []string{
		"", core.HTTP2Preface, core.HTTP2Preface + settings, core.HTTP2Preface + settings + head, core.HTTP2Preface + settings + head + frame(FrameData, FlagEndStream, 1, "body"),
		core.HTTP2Preface + settings + frame(FrameHeaders, FlagEndHeaders|FlagEndStream, 1, string(block)) + frame(FrameResetStream, 0, 1, "\x00\x00\x00\x08"),
		core.HTTP2Preface + settings + frame(FrameHeaders, 0, 3, string(block[:3])) + frame(FrameContinuation, FlagEndHeaders, 3, string(block[3:])),
		core.HTTP2Preface + settings + head + frame(FrameWindowUpdate, 0, 1, "\x7f\xff\xff\xff") + frame(FramePing, 0, 0, "12345678"),
		core.HTTP2Preface + settings + head + frame(FrameHeaders, FlagEndHeaders|FlagEndStream, 1, "\x00\x01a\x01b"),
		core.HTTP2Preface + frame(FrameSettings, 0, 0, "\x00\x04\x00\x00\x00\x00") + frame(FrameHeaders, FlagEndHeaders|FlagEndStream, 1, string(block)),
		core.HTTP2Preface + settings + head + frame(FramePriorityUpdate, 0, 0, "\x00\x00\x00\x01u=0") + frame(FrameGoAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00"),
	} {
		f.Add([]byte(seed))
	}
	var panics atomic.Int64
	l, err := loop.New(loop.Options{Log: slog.New(slog.DiscardHandler), Panicked: func() { panics.Add(1) }})
	if err != nil {
		f.Fatal(err)
	}
	r := &reader{}
	r.route = &core.Route{Name: "all", Action: r, BodyLimit: -1}
	worker := core.NewGateway(&core.Snapshot{Router: r}, r).NewWorker(l)
	server := NewServer(worker)
	port := &fuzzPort{settings: core.Listener{Name: "fuzz", Scheme: "http", HeaderBytes: 8 << 10, Headers: 50, HeaderTimeout: time.Second,
		IdleTimeout: time.Second, BodyTimeout: time.Second, WriteTimeout: time.Second}}
	l.Start()
	f.Cleanup(func() { _ = l.Stop() })
	f.Fuzz(func(t *testing.T, data []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[1]), "client")
		client, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		port.open.Add(1)
		if err := l.Do(5*time.Second, func() {
			c, err := l.Adopt(fds[0], nil)
			if err != nil {
				t.Error(err)
				return
			}
			c.Handle(server.NewConn(c, port, netip.AddrPort{}, nil, nil))
			c.Idle(0)
		}); err != nil {
			t.Fatal(err)
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			_, _ = io.Copy(io.Discard, client)
		}()
		_ = client.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = client.Write(data)
		time.Sleep(200 * time.Microsecond) // so that some of it is under way
		_ = client.Close()
		<-drained
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
			active := 1
			if err := l.Do(5*time.Second, func() { active = worker.Active() + server.Counters().Streams + server.Counters().Connections }); err != nil {
				t.Fatal(err)
			}
			if active == 0 && port.open.Load() == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d connections are open and %d things under way after the client has gone", port.open.Load(), active)
			}
		}
		if panics.Load() > 0 {
			t.Fatal("a task panicked")
		}
	})
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}
