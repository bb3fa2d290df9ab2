package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// What a client may take and hold.
const (
	headBytes   = 8 << 10
	bodyBytes   = 16 << 10
	connections = 64
	readTimeout = 10 * time.Second
	sendTimeout = 30 * time.Second
	idleTimeout = 60 * time.Second
)

// Server serves a Source. Make it with NewServer, end it with Shutdown.
type Server struct {
	source Source
	log    *slog.Logger
	http   *fasthttp.Server

	connected atomic.Int64 // fasthttp's own count is one less once it does not listen any more

	ending chan struct{} // closed when Shutdown begins
	ended  sync.Once

	change   sync.Mutex // held while a reload or an upgrade runs
	changing sync.WaitGroup
}

// NewServer gives a server that answers nobody yet.
func NewServer(source Source, log *slog.Logger) *Server {
	s := &Server{source: source, log: log, ending: make(chan struct{})}
	s.http = &fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 refuse,
		Name:                         "sluice",
		Concurrency:                  connections,
		ReadBufferSize:               headBytes,
		MaxRequestBodySize:           bodyBytes,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 sendTimeout,
		IdleTimeout:                  idleTimeout,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		Logger:                       quiet{log},
		ConnState: func(_ net.Conn, state fasthttp.ConnState) {
			switch state {
			case fasthttp.StateNew:
				s.connected.Add(1)
			case fasthttp.StateClosed, fasthttp.StateHijacked:
				s.connected.Add(-1)
			}
		},
	}
	return s
}

// Serve answers those who connect to l until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(forgiving{l}); err != nil {
		return fmt.Errorf("cannot serve the admin API: %w", err)
	}
	return nil
}

// Shutdown closes the listener, and returns when the last answer has been sent and the last reload or upgrade has ended, or ctx has.
func (s *Server) Shutdown(ctx context.Context) error {
	s.ended.Do(func() { close(s.ending) })
	if err := s.http.ShutdownWithContext(ctx); err != nil {
		return fmt.Errorf("cannot end the admin API: %w", err)
	}
	done := make(chan struct{})
	go func() {
		s.changing.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot end the admin API: a reload or upgrade is under way: %w", ctx.Err())
	}
}

// Leave ends the server after another process has the socket of l: those who are connected have until ctx ends to ask and be
// answered, which Shutdown, for which they are idle, does not give them.
func (s *Server) Leave(ctx context.Context, l net.Listener) error {
	err := forgiving{l}.Close()
	tick := time.NewTicker(leavePoll)
	defer tick.Stop()
	for s.connected.Load() > 0 && ctx.Err() == nil {
		<-tick.C
	}
	return errors.Join(err, s.Shutdown(ctx))
}

// forgiving may be closed again: fasthttp ends nothing if its listener does not close.
type forgiving struct{ net.Listener }

func (f forgiving) Close() error {
	if err := f.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// leavePoll is how often Leave looks whether anybody is left.
const leavePoll = 10 * time.Millisecond

// handle finds what is asked for. A panic ends one answer.
func (s *Server) handle(c *fasthttp.RequestCtx) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in the admin API", "path", string(c.Path()), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.Response.Reset()
			fail(c, fasthttp.StatusInternalServerError, "internal")
		}
	}()
	c.Response.Header.Set("Cache-Control", "no-store")
	if reason := foreign(c); reason != "" {
		fail(c, fasthttp.StatusForbidden, reason)
		return
	}
	method := string(c.Method())
	if method == fasthttp.MethodHead {
		method = fasthttp.MethodGet // fasthttp leaves the body out
	}
	methods := s.methods(string(c.Path()))
	if methods == nil {
		fail(c, fasthttp.StatusNotFound, "no such path")
		return
	}
	for _, m := range methods {
		if m.name == method {
			m.answer(c)
			return
		}
	}
	allow := ""
	for i, m := range methods {
		if i > 0 {
			allow += ", "
		}
		if allow += m.name; m.name == fasthttp.MethodGet {
			allow += ", HEAD"
		}
	}
	c.Response.Header.Set("Allow", allow)
	fail(c, fasthttp.StatusMethodNotAllowed, "allowed: "+allow)
}

type method struct {
	name   string
	answer func(*fasthttp.RequestCtx)
}

func get(answer func(*fasthttp.RequestCtx)) []method {
	return []method{{fasthttp.MethodGet, answer}}
}

func (s *Server) methods(path string) []method {
	switch path {
	case "/healthz":
		return get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, state{"ok"}) })
	case "/readyz":
		return get(s.ready)
	case "/metrics":
		return get(s.metrics)
	case "/status":
		return get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, s.source.Status()) })
	case "/config":
		return get(func(c *fasthttp.RequestCtx) {
			c.SetContentType("application/yaml")
			c.SetBody(s.source.Config())
		})
	case "/routes":
		return append(get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Routes())) }),
			method{fasthttp.MethodPut, s.setWeights})
	case "/canaries":
		return append(get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Canaries())) }),
			method{fasthttp.MethodPut, s.changeCanary})
	case "/certs":
		return get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Certs())) })
	case "/limits":
		return get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Limits())) })
	case "/limit":
		return append(get(s.limit(false)), method{fasthttp.MethodDelete, s.limit(true)})
	case "/jwks":
		return get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Keys())) })
	case "/signing-keys":
		return get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.SigningKeys())) })
	case "/.well-known/jwks.json":
		return get(s.identityKeys)
	case "/tokens":
		return append(get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Revocations())) }),
			method{fasthttp.MethodPut, s.changeTokens})
	case "/sessions":
		return append(get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Logins())) }),
			method{fasthttp.MethodDelete, s.endSessions})
	case "/upstreams":
		return append(get(func(c *fasthttp.RequestCtx) { reply(c, fasthttp.StatusOK, list(s.source.Upstreams())) }),
			method{fasthttp.MethodPut, s.setEndpoints})
	case "/log-level":
		return append(get(s.logLevel), method{fasthttp.MethodPut, s.setLogLevel})
	case "/reload":
		return []method{{fasthttp.MethodPost, func(c *fasthttp.RequestCtx) { s.begin(c, "applied", s.source.Reload) }}}
	case "/upgrade":
		return []method{{fasthttp.MethodPost, s.upgrade}}
	}
	if name, ok := strings.CutPrefix(path, profiles); ok {
		return s.profile(name)
	}
	return nil
}

func (s *Server) ready(c *fasthttp.RequestCtx) {
	if err := s.source.Ready(); err != nil {
		fail(c, fasthttp.StatusServiceUnavailable, err.Error())
		return
	}
	reply(c, fasthttp.StatusOK, state{"ready"})
}

// metrics gathers before it sends: a slow reader must not keep the gateway's counters waiting.
func (s *Server) metrics(c *fasthttp.RequestCtx) {
	var b bytes.Buffer
	if err := s.source.Metrics(&b); err != nil {
		fail(c, fasthttp.StatusInternalServerError, err.Error())
		return
	}
	c.SetContentType("text/plain; version=0.0.4; charset=utf-8")
	c.Response.SetBodyRaw(b.Bytes())
}

func (s *Server) logLevel(c *fasthttp.RequestCtx) {
	level, routes := s.source.LogLevel()
	reply(c, fasthttp.StatusOK, LogLevel{Level: level, Routes: list(routes)})
}

// read takes a JSON body, or refuses it.
func read(c *fasthttp.RequestCtx, to any) bool {
	d := json.NewDecoder(bytes.NewReader(c.PostBody()))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		fail(c, fasthttp.StatusBadRequest, "cannot read body: "+err.Error())
		return false
	}
	if _, err := d.Token(); err != io.EOF {
		fail(c, fasthttp.StatusBadRequest, "cannot read body: more than one value")
		return false
	}
	return true
}

func (s *Server) setEndpoints(c *fasthttp.RequestCtx) {
	var set SetEndpoints
	if !read(c, &set) {
		return
	}
	if err := s.source.SetEndpoints(set); err != nil {
		fail(c, fasthttp.StatusBadRequest, err.Error())
		return
	}
	replyOne(c, "upstream", s.source.Upstreams(), func(u *UpstreamStatus) bool { return u.Name == set.Upstream })
}

func (s *Server) setLogLevel(c *fasthttp.RequestCtx) {
	var set SetLogLevel
	if !read(c, &set) {
		return
	}
	if err := s.source.SetLogLevel(set.Route, set.Level); err != nil {
		fail(c, fasthttp.StatusBadRequest, err.Error())
		return
	}
	s.log.Info("log level changed", "level", set.Level, "route", set.Route)
	s.logLevel(c)
}

// upgrade has another process take this one's place. Who names a binary says what runs with the gateway's rights: over TCP every
// user of the host could.
func (s *Server) upgrade(c *fasthttp.RequestCtx) {
	binary := string(c.QueryArgs().Peek("binary"))
	if _, tcp := c.LocalAddr().(*net.TCPAddr); tcp && binary != "" {
		fail(c, fasthttp.StatusForbidden, "a binary may be named over a unix socket only")
		return
	}
	hurry := false
	switch text := string(c.QueryArgs().Peek("hurry")); text {
	case "", "false":
	case "true":
		hurry = true
	default:
		fail(c, fasthttp.StatusBadRequest, fmt.Sprintf("hurry is %q: true or false", text))
		return
	}
	s.begin(c, "upgraded", func() error { return s.source.Upgrade(binary, hurry) })
}

// begin makes a change. Who waits is told how it ended, and comes after one that is under way; who does not is turned away
// meanwhile.
func (s *Server) begin(c *fasthttp.RequestCtx, done string, change func() error) {
	if len(c.PostBody()) > 0 {
		fail(c, fasthttp.StatusBadRequest, "a body is not wanted")
		return
	}
	switch wait := string(c.QueryArgs().Peek("wait")); wait {
	case "true":
		s.change.Lock()
		defer s.change.Unlock()
		if err := s.apply(change); err != nil {
			fail(c, fasthttp.StatusUnprocessableEntity, err.Error())
			return
		}
		reply(c, fasthttp.StatusOK, state{done})
	case "", "false":
		if !s.change.TryLock() {
			fail(c, fasthttp.StatusConflict, "a reload or upgrade is under way")
			return
		}
		s.changing.Add(1)
		go func() {
			defer s.changing.Done()
			defer s.change.Unlock()
			_ = s.apply(change) // the source logs why it refuses, and /status shows it
		}()
		reply(c, fasthttp.StatusAccepted, state{"accepted"})
	default:
		fail(c, fasthttp.StatusBadRequest, fmt.Sprintf("wait is %q: true or false", wait))
	}
}

// apply makes a change. A panic is a refusal: the gateway goes on with what it has.
func (s *Server) apply(change func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a reload or upgrade", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal")
		}
	}()
	return change()
}

// foreign says why a request is not from whom the API is for. A web page can make its visitor's browser send requests to a
// loopback address, under a name of its own that resolves there: it cannot do so without giving itself away.
func foreign(c *fasthttp.RequestCtx) string {
	h := &c.Request.Header
	if len(h.Peek("Origin")) > 0 || len(h.Peek("Sec-Fetch-Site")) > 0 {
		return "web pages may not use the admin API"
	}
	if _, tcp := c.LocalAddr().(*net.TCPAddr); !tcp {
		return ""
	}
	host := string(h.Host())
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		return "ask for it by a loopback address or localhost"
	}
	return ""
}

// refuse answers what fasthttp could not read.
func refuse(c *fasthttp.RequestCtx, err error) {
	c.Response.Reset()
	c.SetConnectionClose()
	switch e := (*fasthttp.ErrSmallBuffer)(nil); {
	case errors.As(err, &e):
		fail(c, fasthttp.StatusRequestHeaderFieldsTooLarge, "head too large")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		fail(c, fasthttp.StatusRequestEntityTooLarge, "body too large")
	default:
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			fail(c, fasthttp.StatusRequestTimeout, "request timeout")
			return
		}
		fail(c, fasthttp.StatusBadRequest, "bad request")
	}
}

func fail(c *fasthttp.RequestCtx, status int, text string) { reply(c, status, failure{text}) }

func reply(c *fasthttp.RequestCtx, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("BUG: " + err.Error()) // plain data
	}
	c.SetStatusCode(status)
	c.SetContentType("application/json")
	c.SetBody(append(b, '\n'))
}

// list makes an empty list of none, for JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// quiet takes what fasthttp logs: trouble with single connections.
type quiet struct{ log *slog.Logger }

func (q quiet) Printf(format string, args ...any) {
	q.log.Debug("admin API", "event", fmt.Sprintf(format, args...))
}

// replyOne tells what has become of the one that was changed. A reload may have taken it away since.
func replyOne[T any](c *fasthttp.RequestCtx, what string, all []T, is func(*T) bool) {
	for i := range all {
		if is(&all[i]) {
			reply(c, fasthttp.StatusOK, all[i])
			return
		}
	}
	fail(c, fasthttp.StatusConflict, "the "+what+" has gone meanwhile")
}
