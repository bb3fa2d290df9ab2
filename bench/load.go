package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// loadResult is what a load generator reports of one run.
type loadResult struct {
	requests int
	elapsed  time.Duration
	mean     time.Duration // of the time to an answer
	p50, p99 time.Duration // 0: h2load does not tell
	refused  int           // answers that are not a success
	broken   int           // connect, read, write errors and time-outs
}

// generator is a program that puts load on a proxy. It is plain data and never changed.
type generator struct {
	name  string
	path  string // "": the bench itself
	args  func(r *rig, s scenario, address string, seconds int) []string
	parse func(s scenario, text []byte) (loadResult, error)
}

func (s scenario) generator() generator {
	switch {
	case s.handshake != handshakeKept:
		return generator{name: childHandshakes, args: handshakesArgs, parse: parseHandshakes}
	case s.wire.h2:
		return generator{name: h2loadBinary, path: h2loadBinary, args: h2loadArgs, parse: parseH2load}
	}
	return generator{name: wrkBinary, path: wrkBinary, args: wrkArgs, parse: parseWrk}
}

// tool is the program that must be installed for the scenario's load, or nothing.
func (s scenario) tool() string {
	if s.kind != cpuPerRequest {
		return ""
	}
	return s.generator().path
}

// trouble is why a run must not be counted.
func (r loadResult) trouble() error {
	var problems []error
	if r.requests == 0 {
		problems = append(problems, errors.New("no request was completed"))
	}
	if r.refused > 0 {
		problems = append(problems, fmt.Errorf("%d of %d answers were no success", r.refused, r.requests))
	}
	if r.broken > 0 {
		problems = append(problems, fmt.Errorf("%d socket errors or time-outs", r.broken))
	}
	return errors.Join(problems...)
}

func (r loadResult) perSecond() float64 {
	return float64(r.requests) / r.elapsed.Seconds()
}

// load runs the scenario's generator against the proxy at address.
func (r *rig) load(ctx context.Context, s scenario, address string, seconds int) (loadResult, error) {
	chosen := s.generator()
	path := chosen.path
	if path == "" {
		self, err := self()
		if err != nil {
			return loadResult{}, err
		}
		path = self
	}
	var output bytes.Buffer
	running, err := r.launcher.start(program{
		name: chosen.name, path: path, args: chosen.args(r, s, address, seconds), cpus: r.cpus.load,
		env: []string{"OPENSSL_CONF=" + r.identity.openssl}, stdout: &output, output: filepath.Join(r.dir, "load-errors.log"),
	})
	if err != nil {
		return loadResult{}, err
	}
	defer r.launcher.stop(running)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+readyTimeout)
	defer cancel()
	if err := running.wait(ctx); err != nil {
		return loadResult{}, fmt.Errorf("cannot put load on %s: %w", address, err)
	}
	return chosen.parse(s, output.Bytes())
}
