package compile

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/tls"
)

// Warning is what works, but not for long, not for everybody or not safely. It refuses nothing.
type Warning struct {
	At         config.Pos
	Message    string // what kind of thing it is about, in the log
	Noun, Name string // whose it is, such as a listener's
	File       string // that it is about; "": none
	Text       string // one line
	Severe     bool   // clients are refused by it, or will not get what was meant for them
}

// String says all but the place.
func (w Warning) String() string {
	of := fmt.Sprintf("%s %q", w.Noun, w.Name)
	if w.File != "" {
		of += fmt.Sprintf(", %q", w.File)
	}
	return of + ": " + w.Text
}

// severe says so of what would refuse a configuration that is new.
func severe(k tls.Kind) bool { return k == tls.Expired || k == tls.Overlap }

func (c *Compiled) warn(w Warning) { c.Warnings = append(c.Warnings, w) }

// tell logs them, where there is a log.
func (r *Registry) tell(all []Warning) {
	if r.log == nil {
		return
	}
	for _, w := range all {
		attributes := []any{slog.String(w.Noun, w.Name), slog.Any("position", w.At)}
		if w.File != "" {
			attributes = append(attributes, slog.String("file", w.File))
		}
		level := slog.LevelWarn
		if w.Severe {
			level = slog.LevelError
		}
		r.log.Log(context.Background(), level, w.Message, append(attributes, slog.String("warning", w.Text))...)
	}
}
