package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	childUpstream = "upstream" // the hidden subcommand of serveUpstream

	pathSink         = "/sink"          // reads the body, answers sinkAnswer
	pathHold         = "/hold"          // answers holdAnswer once pathRelease has been asked for
	pathHeld         = "/held"          // how many requests wait on pathHold
	pathRelease      = "/release"       // lets go of those that wait, and holds those that come after
	pathForwardedFor = "/forwarded-for" // the X-Forwarded-For of this request

	sinkAnswer = "ok\n"
	holdAnswer = "held\n"

	holdLimit     = time.Minute
	maxCountBytes = 64
)

// upstreams are the servers behind the proxies.
type upstreams struct {
	fixed  string // address of the nginx that answers with fixed bodies
	calls  string // address of the one that answers calls
	reader string // address of the one that reads request bodies and can hold requests
}

// startUpstreams starts both servers on the processors of the load and waits for them.
func (r *rig) startUpstreams(ctx context.Context) error {
	bodies := filepath.Join(r.dir, "bodies")
	if err := os.Mkdir(bodies, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of bodies: %w", err)
	}
	for name, size := range map[string]int{"64k": mediumBodyBytes, "1m": largeBodyBytes} {
		if err := os.WriteFile(filepath.Join(bodies, name), fill(size), 0o644); err != nil {
			return fmt.Errorf("cannot write body: %w", err)
		}
	}
	for _, name := range []string{"post.lua", "tenants.lua", "tokens.lua"} {
		script, err := peerFiles.ReadFile("peers/" + name)
		if err != nil {
			return fmt.Errorf("cannot read wrk's script: %w", err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, name), script, 0o644); err != nil {
			return fmt.Errorf("cannot write wrk's script: %w", err)
		}
	}
	var err error
	if r.upstreams.fixed, err = freeAddress(); err != nil {
		return err
	}
	if err := os.WriteFile(r.callFile(), fill(callBytes), 0o644); err != nil {
		return fmt.Errorf("cannot write the message of calls: %w", err)
	}
	config := filepath.Join(r.dir, "upstream.conf")
	nginxSite := site{Dir: r.dir, Listen: r.upstreams.fixed, FileLimit: r.fileLimit, SmallBody: string(fill(smallBodyBytes))}
	if err := render("upstream.conf.tmpl", config, nginxSite); err != nil {
		return err
	}
	if err := r.startUpstream(ctx, r.upstreams.fixed, program{path: nginxBinary, args: nginxArgs(r.dir, config)}); err != nil {
		return err
	}
	if r.upstreams.reader, err = freeAddress(); err != nil {
		return err
	}
	if r.upstreams.calls, err = freeAddress(); err != nil {
		return err
	}
	self, err := self()
	if err != nil {
		return err
	}
	if err := r.startUpstream(ctx, r.upstreams.calls, program{path: self, args: []string{childCalls, r.upstreams.calls}}); err != nil {
		return err
	}
	return r.startUpstream(ctx, r.upstreams.reader, program{path: self, args: []string{childUpstream, r.upstreams.reader}})
}

func (r *rig) startUpstream(ctx context.Context, address string, what program) error {
	what.name, what.cpus, what.output = "upstream", r.cpus.load, filepath.Join(r.dir, "upstream.log")
	p, err := r.launcher.start(what)
	if err != nil {
		return err
	}
	return p.awaitReady(ctx, address)
}

// callFile is where the message of calls stands.
func (r *rig) callFile() string { return filepath.Join(r.dir, "call") }

// callFields are what tells a call from other requests.
var callFields = map[string]string{"Content-Type": "application/grpc", "TE": "trailers"}

// fill makes a body of n bytes that compresses to nothing and contains nothing a configuration file would interpret.
func fill(n int) []byte {
	const pattern = "0123456789abcdef"
	return []byte(strings.Repeat(pattern, n/len(pattern)+1)[:n])
}

// serveUpstream is the upstream that reads whole bodies before it answers, and holds requests on demand.
// It runs in a process of its own until ctx ends.
func serveUpstream(ctx context.Context, args []string, _ io.Reader, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("want the address to listen on")
	}
	held := newHolder()
	server := &fasthttp.Server{
		Handler:            held.handle,
		IdleTimeout:        2 * time.Minute,
		ReadTimeout:        2 * time.Minute,
		WriteTimeout:       2 * time.Minute,
		MaxRequestBodySize: 2 * postBodyBytes,
		Concurrency:        4 * activeConnections,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe(args[0]) }()
	select {
	case err := <-failed:
		return fmt.Errorf("cannot serve %s: %w", args[0], err)
	case <-ctx.Done():
		// Those that still wait are cut off with the process.
		return nil
	}
}

// holder keeps requests waiting until they are released.
type holder struct {
	held atomic.Int64
	gate atomic.Pointer[chan struct{}] // closed to release those that wait on it
}

func newHolder() *holder {
	h := &holder{}
	gate := make(chan struct{})
	h.gate.Store(&gate)
	return h
}

func (h *holder) handle(request *fasthttp.RequestCtx) {
	path := string(request.Path())
	switch {
	case path == pathSink:
		if n := len(request.PostBody()); n != postBodyBytes {
			request.Error(fmt.Sprintf("body of %d bytes", n), http.StatusBadRequest)
			return
		}
		request.SetBodyString(sinkAnswer)
	case path == pathHold:
		gate := *h.gate.Load()
		h.held.Add(1)
		defer h.held.Add(-1)
		select {
		case <-gate:
			request.SetBodyString(holdAnswer)
		case <-time.After(holdLimit):
			request.Error("not released", http.StatusGatewayTimeout)
		}
	case path == pathHeld:
		request.SetBodyString(strconv.FormatInt(h.held.Load(), 10))
	case path == pathRelease:
		gate := make(chan struct{})
		close(*h.gate.Swap(&gate))
	case strings.HasSuffix(path, pathForwardedFor):
		// A proxy may append a line of its own.
		request.SetBody(bytes.Join(request.Request.Header.PeekAll("X-Forwarded-For"), []byte(", ")))
	default:
		request.Error("no such path", http.StatusNotFound)
	}
}

// askUpstream fetches a path of the body-reading upstream directly.
func (r *rig) askUpstream(ctx context.Context, path string) (string, error) {
	status, body, err := client{}.fetch(ctx, http.MethodGet, r.upstreams.reader, path, nil, maxCountBytes)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", fmt.Errorf("cannot ask the upstream for %q: status %d", path, status)
	}
	return string(body), nil
}

func (r *rig) awaitHeld(ctx context.Context, want int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errors.New("waited too long"))
	defer cancel()
	last := ""
	err := poll(ctx, func() (bool, error) {
		var err error
		last, err = r.askUpstream(ctx, pathHeld)
		return last == strconv.Itoa(want), err
	})
	if err != nil {
		return fmt.Errorf("cannot get %d requests to the upstream, only %q: %w", want, last, err)
	}
	return nil
}
