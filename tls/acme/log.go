package acme

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxLinesPerMinute bounds what certmagic may log as warnings: clients cause some of it.
const maxLinesPerMinute = 60

// bridge takes what certmagic logs to a slog.Logger, the small print as debug messages and errors as warnings, since what
// they come to is in Status.
type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
	window *window
}

// window counts the warnings of the present minute.
type window struct {
	minute, lines atomic.Int64
}

// allows says whether one more warning is within the bound. Where minutes meet it may err by a few.
func (w *window) allows(now time.Time) bool {
	minute := now.Unix() / 60
	if w.minute.Swap(minute) != minute {
		w.lines.Store(0)
	}
	return w.lines.Add(1) <= maxLinesPerMinute
}

func (m *Issuer) zapLogger() *zap.Logger {
	return zap.New(&bridge{log: m.options.Log, window: &window{}})
}

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug - 1
	case l < zapcore.WarnLevel:
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// levelOf makes no warning of the steps of an attempt: who made the attempt tells what came of it.
func levelOf(e zapcore.Entry) slog.Level {
	if e.LoggerName == "obtain" || e.LoggerName == "renew" || strings.HasSuffix(e.LoggerName, "acme_client") {
		return min(slogLevel(e.Level), slog.LevelDebug)
	}
	return slogLevel(e.Level)
}

func (b *bridge) Enabled(l zapcore.Level) bool {
	return b.log.Enabled(context.Background(), slogLevel(l))
}

func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{log: b.log, fields: append(slices.Clip(b.fields), fields...), window: b.window}
}

func (b *bridge) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.log.Enabled(context.Background(), levelOf(e)) {
		return to.AddCore(e, b)
	}
	return to
}

func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := levelOf(e)
	if level == slog.LevelWarn && !b.window.allows(e.Time) {
		return nil
	}
	values := zapcore.NewMapObjectEncoder()
	attrs := []slog.Attr{slog.String("from", e.LoggerName)}
	for _, f := range slices.Concat(b.fields, fields) {
		f.AddTo(values)
		if v, ok := values.Fields[f.Key]; ok {
			attrs = append(attrs, slog.Any(f.Key, v))
		}
	}
	b.log.LogAttrs(context.Background(), level, "acme: "+e.Message, attrs...)
	return nil
}

func (b *bridge) Sync() error { return nil }
