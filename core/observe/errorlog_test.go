package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

func TestErrorLogLevelAtRunTime(t *testing.T) {
	var b bytes.Buffer
	e, err := NewErrorLog("warn", "json", &b)
	if err != nil {
		t.Fatal(err)
	}
	e.Logger().Info("one")
	e.Logger().Warn("two")
	if err := e.SetLevel("debug"); err != nil || e.Level() != "debug" {
		t.Errorf("level %s: %v", e.Level(), err)
	}
	e.Logger().Debug("three")
	if err := e.SetLevel("loud"); err == nil || e.Level() != "debug" {
		t.Errorf("level %s after one that is none: %v", e.Level(), err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e.Logger().Error("four")
	var got []string
	for line := range strings.Lines(b.String()) {
		var m struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Msg)
	}
	if strings.Join(got, " ") != "two three four" {
		t.Errorf("%v", got)
	}
	for _, bad := range [][2]string{{"info", "xml"}, {"INFO", "text"}} {
		if _, err := NewErrorLog(bad[0], bad[1], &b); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// gate lets writes through once it is open.
type gate struct{ sync.Mutex }

func (g *gate) Write(b []byte) (int, error) {
	g.Lock()
	defer g.Unlock()
	return len(b), nil
}

func TestErrorLogNeverWaits(t *testing.T) {
	g := &gate{}
	g.Lock()
	e, err := NewErrorLog("info", "text", g)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxQueuedLines {
		e.Logger().Info("x")
	}
	if d := e.Dropped(); d < maxQueuedLines || d > 2*maxQueuedLines {
		t.Errorf("%d lines dropped", d)
	}
	if err := e.Close(); err == nil {
		t.Error("closed although nothing was taken")
	}
	g.Unlock()
	<-e.queue.stopped
}

func TestOneRouteIsDebugged(t *testing.T) {
	s := newSite(t, 1)
	other := &core.Route{Name: "other", Metric: s.Registry().Route("other")}
	both := func() {
		s.on(t, 0, func(x *core.Exchange) {
			x.Request.Add(core.FieldAuthorization, []byte("Bearer secret"))
			x.Err = core.ErrConnectFailed
			s.Observe(x)
			x.Route = other
			s.Observe(x)
		})
	}
	both()
	if err := s.SetLogLevel("shop", "debug"); err != nil {
		t.Fatal(err)
	}
	both()
	if level, routes := s.LogLevel(); level != "info" || len(routes) != 1 || routes[0] != "shop" {
		t.Errorf("level %s, routes %v", level, routes)
	}
	if err := s.SetLogLevel("shop", "info"); err != nil {
		t.Fatal(err)
	}
	both()
	if err := s.SetLogLevel("nowhere", "debug"); err == nil {
		t.Error("a route that is not there was debugged")
	}
	if err := s.SetLogLevel("shop", "loud"); err == nil {
		t.Error("a level that is none was taken")
	}
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	text := s.errors.String()
	if n := strings.Count(text, "msg=exchange"); n != 1 {
		t.Fatalf("%d exchanges told: %s", n, text)
	}
	for _, want := range []string{"level=DEBUG", "route=shop", "error=connect_failed", "upstream=catalog", "head_after=2.03ms", "Authorization"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("a credential was logged: %s", text)
	}
}

func TestDebuggedRoutesAreBounded(t *testing.T) {
	s := newSite(t, 1)
	for i := range maxDebugged + 1 {
		name := fmt.Sprint("r", i)
		s.Registry().Route(name)
		if err := s.SetLogLevel(name, "debug"); (err != nil) != (i == maxDebugged) {
			t.Errorf("route %d: %v", i, err)
		}
	}
	if err := s.SetLogLevel("", "error"); err != nil || s.log.Logger().Enabled(t.Context(), slog.LevelWarn) {
		t.Errorf("level %s: %v", s.log.Level(), err)
	}
}

// noReader is a pipe whose reader has gone.
type noReader struct{}

func (noReader) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// A line that could not be written is counted: the log itself cannot tell.
func TestErrorLogCountsFailedWrites(t *testing.T) {
	e, err := NewErrorLog("info", "text", noReader{})
	if err != nil {
		t.Fatal(err)
	}
	e.Logger().Info("one")
	e.Logger().Info("two")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := e.Dropped(); n != 2 {
		t.Errorf("%d of 2 lines are counted", n)
	}
}
