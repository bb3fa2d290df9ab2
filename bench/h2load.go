package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

const h2loadBinary = "h2load"

var (
	h2loadTotal    = regexp.MustCompile(`(?m)^finished in ([0-9.]+)(us|ms|s), `)
	h2loadRequests = regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$`)
	h2loadStatus   = regexp.MustCompile(`(?m)^status codes: \d+ 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx$`)
	h2loadMean     = regexp.MustCompile(`(?m)^time for request:\s+\S+\s+\S+\s+([0-9.]+)(us|ms|s)\s`)
	h2loadSlowest  = regexp.MustCompile(`(?m)^req/s\s+:\s+([0-9.]+)\s`)
	h2loadAgreed   = regexp.MustCompile(`(?m)^(TLS Protocol|Cipher|Server Temp Key|Application protocol): (\S+)`)
)

// h2loadArgs are for one thread, which is what one processor can use.
func h2loadArgs(r *rig, s scenario, address string, seconds int) []string {
	args := []string{"--threads", "1", "--clients", strconv.Itoa(s.connections), "--max-concurrent-streams", strconv.Itoa(s.streams),
		"--duration", strconv.Itoa(seconds)}
	if s.calls {
		args = append(args, "--data", r.callFile())
		for name, value := range callFields {
			args = append(args, "--header", name+": "+value)
		}
	}
	return append(args, s.wire.url(address, s.path))
}

// parseH2load reads the text of `h2load --duration` and refuses a run over connections other than the scenario's.
func parseH2load(s scenario, text []byte) (loadResult, error) {
	var result loadResult
	if err := checkH2load(s, text); err != nil {
		return result, err
	}
	total := h2loadTotal.FindSubmatch(text)
	requests := h2loadRequests.FindSubmatch(text)
	status := h2loadStatus.FindSubmatch(text)
	mean := h2loadMean.FindSubmatch(text)
	slowest := h2loadSlowest.FindSubmatch(text)
	if total == nil || requests == nil || status == nil || mean == nil || slowest == nil {
		return result, fmt.Errorf("cannot find the figures in h2load's output %q", bytes.TrimSpace(text))
	}
	var err error
	if result.elapsed, err = time.ParseDuration(string(total[1]) + string(total[2])); err != nil {
		return result, fmt.Errorf("cannot parse h2load's time: %w", err)
	}
	if result.mean, err = time.ParseDuration(string(mean[1]) + string(mean[2])); err != nil {
		return result, fmt.Errorf("cannot parse h2load's mean time: %w", err)
	}
	var counts [6]int // done, failed, errored, timed out, 4xx, 5xx
	for i, text := range append(requests[1:], status[1:]...) {
		if counts[i], err = strconv.Atoi(string(text)); err != nil {
			return result, fmt.Errorf("cannot parse %q in h2load's output: %w", text, err)
		}
	}
	result.requests = counts[0]
	result.refused = counts[4] + counts[5]
	// What errored or timed out is among the failed; the rest of those has a status that is no success.
	result.broken = max(counts[1]-result.refused, counts[2]+counts[3])
	// A connection that could not be made is counted nowhere: it has only made no request.
	if rate, err := strconv.ParseFloat(string(slowest[1]), 64); err != nil || rate == 0 {
		result.broken++
	}
	return result, nil
}

// checkH2load compares what h2load has agreed on with its servers, of which it tells that of the first connection.
func checkH2load(s scenario, text []byte) error {
	agreed := make(map[string]string)
	for _, match := range h2loadAgreed.FindAllSubmatch(text, -1) {
		agreed[string(match[1])] = string(match[2])
	}
	want := map[string]string{"Application protocol": "h2c"}
	if s.wire.tls {
		want = map[string]string{
			"Application protocol": alpnH2,
			"TLS Protocol":         "TLSv1.3",
			"Cipher":               "TLS_AES_128_GCM_SHA256",
			"Server Temp Key":      "X25519",
		}
	}
	var problems []error
	for name, value := range want {
		if agreed[name] != value {
			problems = append(problems, fmt.Errorf("wrong work: h2load's %s is %q, want %q", name, agreed[name], value))
		}
	}
	return errors.Join(problems...)
}
