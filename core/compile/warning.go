package compile

import (
	"fmt"
	"log/slog"

	"github.com/sluice-gateway/sluice/core/config"
)

// Warning is what works, but not for long, not for everybody or not safely. It refuses nothing.
type Warning struct {
	At         config.Pos
	Message    string // what kind of thing it is about, in the log
	Noun, Name string // whose it is, such as a listener's
	File       string // that it is about; "": none
	Text       string // one line
}

// String says all but the place.
func (w Warning) String() string {
	of := fmt.Sprintf("%s %q", w.Noun, w.Name)
	if w.File != "" {
		of += fmt.Sprintf(", %q", w.File)
	}
	return of + ": " + w.Text
}

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
		r.log.Warn(w.Message, append(attributes, slog.String("warning", w.Text))...)
	}
}
