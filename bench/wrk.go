package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// loadResult is what wrk reports of one run.
type loadResult struct {
	requests int
	elapsed  time.Duration
	p50, p99 time.Duration
	refused  int // answers that are neither 2xx nor 3xx
	broken   int // connect, read, write errors and time-outs
}

var (
	wrkTotal      = regexp.MustCompile(`(?m)^\s*(\d+) requests in ([0-9.]+)(us|ms|s|m|h),`)
	wrkPercentile = regexp.MustCompile(`(?m)^\s*(50|99)%\s+([0-9.]+)(us|ms|s|m|h)\s*$`)
	wrkRefused    = regexp.MustCompile(`(?m)^\s*Non-2xx or 3xx responses: (\d+)\s*$`)
	wrkBroken     = regexp.MustCompile(`(?m)^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)\s*$`)
)

// parseWrk reads the text of `wrk --latency`. Lines about errors are there only when there were some; all others must be.
func parseWrk(text []byte) (loadResult, error) {
	var result loadResult
	total := wrkTotal.FindSubmatch(text)
	if total == nil {
		return result, fmt.Errorf("cannot find the number of requests in wrk's output %q", bytes.TrimSpace(text))
	}
	var err error
	if result.requests, err = strconv.Atoi(string(total[1])); err != nil {
		return result, fmt.Errorf("cannot parse wrk's number of requests: %w", err)
	}
	if result.elapsed, err = time.ParseDuration(string(total[2]) + string(total[3])); err != nil {
		return result, fmt.Errorf("cannot parse wrk's time: %w", err)
	}
	for _, match := range wrkPercentile.FindAllSubmatch(text, -1) {
		latency, err := time.ParseDuration(string(match[2]) + string(match[3]))
		if err != nil {
			return result, fmt.Errorf("cannot parse wrk's latency: %w", err)
		}
		if string(match[1]) == "50" {
			result.p50 = latency
		} else {
			result.p99 = latency
		}
	}
	if result.requests > 0 && (result.p50 == 0 || result.p99 == 0) {
		return result, fmt.Errorf("cannot find the latencies in wrk's output %q", bytes.TrimSpace(text))
	}
	if result.refused, err = sumGroups(wrkRefused, text); err != nil {
		return result, err
	}
	result.broken, err = sumGroups(wrkBroken, text)
	return result, err
}

// sumGroups adds the numbers that a pattern catches; none is 0.
func sumGroups(pattern *regexp.Regexp, text []byte) (int, error) {
	match := pattern.FindSubmatch(text)
	sum := 0
	for i := 1; i < len(match); i++ {
		n, err := strconv.Atoi(string(match[i]))
		if err != nil {
			return 0, fmt.Errorf("cannot parse %q in wrk's output: %w", match[0], err)
		}
		sum += n
	}
	return sum, nil
}

// trouble is why a run must not be counted.
func (r loadResult) trouble() error {
	var problems []error
	if r.requests == 0 {
		problems = append(problems, errors.New("no request was completed"))
	}
	if r.refused > 0 {
		problems = append(problems, fmt.Errorf("%d of %d answers were neither 2xx nor 3xx", r.refused, r.requests))
	}
	if r.broken > 0 {
		problems = append(problems, fmt.Errorf("%d socket errors or time-outs", r.broken))
	}
	return errors.Join(problems...)
}

func (r loadResult) perSecond() float64 {
	return float64(r.requests) / r.elapsed.Seconds()
}

// load runs wrk with one thread against the proxy at address.
func (r *rig) load(ctx context.Context, s scenario, address string, seconds int) (loadResult, error) {
	args := []string{"--threads", "1", "--connections", strconv.Itoa(s.connections),
		"--duration", strconv.Itoa(seconds) + "s", "--latency"}
	if s.script != "" {
		args = append(args, "--script", filepath.Join(r.dir, s.script))
	}
	args = append(args, "http://"+address+s.path)
	var output bytes.Buffer
	wrk, err := r.launcher.start(program{
		name: wrkBinary, path: wrkBinary, args: args, cpus: r.cpus.load,
		stdout: &output, output: filepath.Join(r.dir, "wrk-errors.log"),
	})
	if err != nil {
		return loadResult{}, err
	}
	defer r.launcher.stop(wrk)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+readyTimeout)
	defer cancel()
	if err := wrk.wait(ctx); err != nil {
		return loadResult{}, fmt.Errorf("cannot put load on %s: %w", address, err)
	}
	return parseWrk(output.Bytes())
}
