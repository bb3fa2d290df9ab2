package server

import (
	"errors"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/observe"
)

// Check compiles the configuration file as Run would, and opens nothing.
func Check(file string) error {
	cfg, problems := config.Load(file)
	if cfg == nil {
		return errors.New(problems.String())
	}
	observer := observe.New(observe.Options{Loops: 1})
	registry := compile.NewRegistry([]*core.Worker{}, observer.Registry(), nil)
	_, err := registry.Compile(cfg)
	return err
}
