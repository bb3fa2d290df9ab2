package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

var (
	wrkTotal      = regexp.MustCompile(`(?m)^\s*(\d+) requests in ([0-9.]+)(us|ms|s|m|h),`)
	wrkMean       = regexp.MustCompile(`(?m)^\s*Latency\s+([0-9.]+)(us|ms|s|m|h)\s`)
	wrkPercentile = regexp.MustCompile(`(?m)^\s*(50|99)%\s+([0-9.]+)(us|ms|s|m|h)\s*$`)
	wrkRefused    = regexp.MustCompile(`(?m)^\s*Non-2xx or 3xx responses: (\d+)\s*$`)
	wrkBroken     = regexp.MustCompile(`(?m)^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)\s*$`)
)

// parseWrk reads the text of `wrk --latency`. Lines about errors are there only when there were some; all others must be.
func parseWrk(_ scenario, text []byte) (loadResult, error) {
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
	if mean := wrkMean.FindSubmatch(text); mean != nil {
		if result.mean, err = time.ParseDuration(string(mean[1]) + string(mean[2])); err != nil {
			return result, fmt.Errorf("cannot parse wrk's mean latency: %w", err)
		}
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
	if result.requests > 0 && (result.mean == 0 || result.p50 == 0 || result.p99 == 0) {
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

// wrkArgs are for one thread, which is what one processor can use.
func wrkArgs(r *rig, s scenario, address string, seconds int) []string {
	args := []string{"--threads", "1", "--connections", strconv.Itoa(s.connections),
		"--duration", strconv.Itoa(seconds) + "s", "--latency"}
	if s.script != "" {
		args = append(args, "--script", filepath.Join(r.dir, s.script))
	}
	args = append(args, s.wire.url(address, s.path))
	if s.tokens {
		args = append(args, "--", r.tokens.all)
	}
	return args
}
