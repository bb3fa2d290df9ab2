package server

import (
	"strings"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/observe"
)

// Check compiles a configuration as a reload would, and opens nothing. It gives a line for each table of a limit, and the
// warnings of certificates and of encryption; those of the configuration itself are Load's.
func Check(cfg *config.Config) (memory []string, warnings config.Problems, err error) {
	observer := observe.New(observe.Options{Loops: 1})
	registry := compile.NewRegistry([]*core.Worker{}, observer.Registry(), nil)
	c, err := registry.Compile(cfg)
	if err != nil {
		return nil, nil, err
	}
	lines := sourceLines{}
	for _, w := range c.Warnings {
		warnings = append(warnings, config.Problem{Pos: w.At, Warning: true, Message: w.String(), Source: lines.at(w.At)})
	}
	return c.Memory(), warnings, nil
}

// sourceLines are the lines of the files of a configuration, by name.
type sourceLines map[string][]string

// at gives the line of a position; "" where it cannot be read any more.
func (s sourceLines) at(p config.Pos) string {
	lines, read := s[p.File]
	if !read {
		if text, err := config.System().ReadFile(p.File); err == nil {
			lines = strings.Split(string(text), "\n")
		}
		s[p.File] = lines
	}
	if p.Line < 1 || int(p.Line) > len(lines) {
		return ""
	}
	return strings.TrimSuffix(lines[p.Line-1], "\r")
}
