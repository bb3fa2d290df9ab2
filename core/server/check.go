package server

import (
	"errors"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
)

// Check compiles the configuration file as Run would, and opens nothing. It gives a line for each table of a limit.
func Check(file string) (memory []string, err error) {
	cfg, problems := Load(file)
	if cfg == nil {
		return nil, errors.New(problems.String())
	}
	observer := observe.New(observe.Options{Loops: 1})
	registry := compile.NewRegistry([]*core.Worker{}, observer.Registry(), nil)
	c, err := registry.Compile(cfg)
	if err != nil {
		return nil, err
	}
	return c.Memory(), nil
}
