package observe

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// maxDebugged bounds the routes that are debugged at once: every exchange looks through them.
const maxDebugged = 16

// routeSet is the routes whose exchanges are told. Immutable.
type routeSet struct {
	ids   []int
	names []string
}

func (s *routeSet) has(id int) bool { return slices.Contains(s.ids, id) }

// SetLogLevel changes the level of the error log, or of one route only: at debug, each of its exchanges is told, whatever
// the level of the log; any other level ends that.
func (o *Observer) SetLogLevel(route, level string) error {
	if o.options.Log == nil {
		return fmt.Errorf("cannot set log level: no error log")
	}
	l, err := parseLevel(level)
	if err != nil {
		return err
	}
	if route == "" {
		o.options.Log.level.Set(l)
		return nil
	}
	id, ok := o.registry.lookupRoute(route)
	if !ok {
		return fmt.Errorf("cannot set log level of route %q: no such route", route)
	}
	if !o.setDebug(id, route, l <= slog.LevelDebug) {
		return fmt.Errorf("cannot debug route %q: %d routes are debugged already", route, maxDebugged)
	}
	return nil
}

// LogLevel is the level of the error log, and the routes that are debugged whatever it is.
func (o *Observer) LogLevel() (level string, routes []string) {
	if o.options.Log != nil {
		level = o.options.Log.Level()
	}
	if s := o.debug.Load(); s != nil {
		routes = slices.Sorted(slices.Values(s.names))
	}
	return level, routes
}

// setDebug says whether there was room.
func (o *Observer) setDebug(id int, name string, on bool) bool {
	o.debugMu.Lock()
	defer o.debugMu.Unlock()
	next := &routeSet{}
	if s := o.debug.Load(); s != nil {
		for i := range s.ids {
			if s.ids[i] != id {
				next.ids, next.names = append(next.ids, s.ids[i]), append(next.names, s.names[i])
			}
		}
	}
	if on {
		if len(next.ids) >= maxDebugged {
			return false
		}
		next.ids, next.names = append(next.ids, id), append(next.names, name)
	}
	if len(next.ids) == 0 {
		next = nil
	}
	o.debug.Store(next)
	return true
}

// tell logs the whole of an exchange. The error log's queue takes the line without waiting; to make it takes some
// microseconds, which is what debugging costs.
func (o *Observer) tell(x *core.Exchange, t *times) {
	if o.options.Log == nil {
		return
	}
	m := &x.Request
	target := m.Bytes(m.Target)
	if m.Private {
		target, _ = splitTarget(target)
	}
	attrs := []slog.Attr{
		slog.String("route", x.Route.Name),
		slog.String("request_id", string(x.RequestID)),
		slog.String("client", string(x.Client.Text)),
		slog.String("peer", x.Client.Peer.String()),
		slog.String("method", string(m.MethodBytes())),
		slog.String("host", string(m.Host())),
		slog.String("target", clip(target)),
		slog.String("forwarded_path", clip(m.Path)),
		slog.Int("status", t.status),
		slog.Int64("request_body", x.Sent.RequestBody),
		slog.Int64("response_body", x.Sent.ResponseBody),
		slog.Int("retries", x.Sent.Retries),
		slog.Duration("took", time.Duration(t.request)),
		slog.Duration("gateway", time.Duration(t.gateway)),
	}
	for _, p := range x.Params {
		attrs = append(attrs, slog.String("param."+p.Name, clip(p.Value)))
	}
	if x.Sent.Pool != nil {
		attrs = append(attrs, slog.String("upstream", x.Sent.Pool.Name))
	}
	if x.Sent.Endpoint != nil {
		attrs = append(attrs, slog.String("endpoint", x.Sent.Endpoint.Address))
	}
	for _, at := range []struct {
		name string
		at   int64
	}{{"sent_after", x.Times.Sent}, {"head_after", x.Times.Head}, {"done_after", x.Times.Done}} {
		if at.at != 0 {
			attrs = append(attrs, slog.Duration(at.name, time.Duration(at.at-x.Times.Start)))
		}
	}
	if x.Err != nil {
		attrs = append(attrs, slog.String("error", x.Err.Error()), slog.String("side", x.Err.Side.String()))
	}
	attrs = append(attrs, slog.String("request_fields", fieldNames(m)), slog.String("response_fields", fieldNames(&x.Response)))
	o.options.Log.everything.LogAttrs(context.Background(), slog.LevelDebug, "exchange", attrs...)
}

// fieldNames are the names of a message's fields. Values may be secrets.
func fieldNames(m *core.Message) string {
	var b strings.Builder
	m.All(func(_ core.FieldID, name, _ []byte) bool {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.Write(name)
		return b.Len() < maxField
	})
	return b.String()
}

func clip(b []byte) string {
	if len(b) > maxField {
		b = b[:maxField]
	}
	return string(b)
}
