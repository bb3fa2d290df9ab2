package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	checkTimeout  = 10 * time.Second
	closeSettle   = 50 * time.Millisecond // the proxy closes the load's connections in this time, and that is counted
	logFlushLimit = 5 * time.Second
	clientForward = "192.0.2.7" // in the X-Forwarded-For of the check: a proxy must append to it or replace it
	loopback      = "127.0.0.1"
)

// rig is what every run needs. It is used by one goroutine.
type rig struct {
	opts      options
	cpus      processors
	dir       string
	fileLimit uint64
	launcher  *launcher
	upstreams upstreams
	identity  identity
	tokens    tokens
	progress  io.Writer
}

// sample is the outcome of one run of one peer. The figures are valid only if err is nil.
type sample struct {
	value       float64 // in the unit of the scenario's kind
	load        loadResult
	busy        float64 // part of the core that the proxy used
	peakKiB     int64
	residentKiB int64
	note        string // something a reader should know though the run counts
	err         error
}

// measurement is all runs of one scenario: samples[peer][round].
type measurement struct {
	scenario scenario
	peers    []peer
	samples  [][]sample
}

// measureAll returns early only if ctx ends: the failure of a run is kept in its sample.
func (r *rig) measureAll(ctx context.Context) ([]measurement, error) {
	var all []measurement
	for _, s := range r.opts.scenarios {
		peers := s.against(r.opts.peers)
		m := measurement{scenario: s, peers: peers, samples: make([][]sample, len(peers))}
		for round := range r.opts.rounds {
			for i, p := range peers {
				result := r.measure(ctx, s, p)
				if ctx.Err() != nil {
					return nil, fmt.Errorf("cannot finish: %w", context.Cause(ctx))
				}
				m.samples[i] = append(m.samples[i], result)
				r.say("%-28s round %d/%d %-8s %s\n", s.name, round+1, r.opts.rounds, p.name, result.describe(s))
			}
		}
		all = append(all, m)
	}
	return all, nil
}

func (r *rig) say(format string, args ...any) {
	fmt.Fprintf(r.progress, format, args...) //nolint:errcheck // progress is a courtesy
}

func (s sample) describe(of scenario) string {
	if s.err != nil {
		return "FAILED: " + s.err.Error()
	}
	text := fmt.Sprintf("%8.2f %s", s.value, of.kind.unit())
	if of.kind == cpuPerRequest {
		text += fmt.Sprintf("  %7.0f/s  core %3.0f %%  mean %s  p50 %s  p99 %s  peak %.1f MiB", s.load.perSecond(), 100*s.busy,
			latency(float64(s.load.mean)), latency(float64(s.load.p50)), latency(float64(s.load.p99)), float64(s.peakKiB)/1024)
	} else {
		text += fmt.Sprintf("  %.1f MiB in all", float64(s.residentKiB)/1024)
	}
	if s.note != "" {
		text += "  (" + s.note + ")"
	}
	return text
}

// measure starts a peer afresh, so that no run inherits memory or connections, checks it, and takes the figure.
func (r *rig) measure(ctx context.Context, s scenario, p peer) (result sample) {
	dir, err := os.MkdirTemp(r.dir, p.name+"-")
	if err != nil {
		return sample{err: fmt.Errorf("cannot make a folder for the run: %w", err)}
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the whole working folder goes at the end
	if err := os.Chmod(dir, 0o755); err != nil {
		return sample{err: fmt.Errorf("cannot open the run's folder to other users: %w", err)}
	}
	site, err := r.site(s, dir)
	if err != nil {
		return sample{err: err}
	}
	config, err := p.writeConfig(site)
	if err != nil {
		return sample{err: err}
	}
	what := program{name: p.name, path: p.binary, args: p.args(dir, config), cpus: r.proxyCPUs(s), output: filepath.Join(dir, "output.log")}
	if p.logToStdout && s.accessLog {
		accessLog, err := os.OpenFile(site.AccessLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return sample{err: fmt.Errorf("cannot open access log: %w", err)}
		}
		defer accessLog.Close() //nolint:errcheck // the child has its own descriptor
		what.stdout = accessLog
	}
	running, err := r.launcher.start(what)
	if err != nil {
		return sample{err: err}
	}
	defer r.launcher.stop(running)
	if err := running.awaitReady(ctx, site.Listen); err != nil {
		return sample{err: err}
	}
	via := client{wire: s.wire, leaf: r.identity.leaf, calls: s.calls}
	if s.tokens && !p.plain {
		via.token = r.tokens.one
	}
	if err := check(ctx, s, p, via, site.Listen); err != nil {
		return sample{err: err}
	}
	if s.kind == cpuPerRequest {
		err = r.measureCPU(ctx, s, running, site, &result)
	} else {
		err = r.measureMemory(ctx, s, running, site.Listen, &result)
	}
	if ended := running.alive(); ended != nil {
		err = errors.Join(ended, err)
	}
	result.err = err
	return result
}

// proxyCPUs are those that the proxy runs on.
func (r *rig) proxyCPUs(s scenario) []int {
	if s.option.spread {
		return slices.Sorted(slices.Values(slices.Concat(r.cpus.proxy, r.cpus.load)))
	}
	return r.cpus.proxy
}

// site gives every peer the same room: twice the connections, and as many idle ones upstream as can be in use.
func (r *rig) site(s scenario, dir string) (site, error) {
	address, err := freeAddress()
	if err != nil {
		return site{}, err
	}
	result := site{
		Dir:          dir,
		Listen:       address,
		Upstream:     r.upstreams.fixed,
		Connections:  max(4096, s.connections+s.connections/5),
		UpstreamIdle: max(256, min(s.connections*max(s.streams, 1), 1024)),
		FileLimit:    r.fileLimit,
		Routes:       s.routePrefixes(),
		LargeBuffers: r.opts.largeBuffers,
		RouteMap:     filepath.Join(dir, "routes.map"),
		TLS:          s.wire.tls,
		H2C:          s.wire.h2 && !s.wire.tls,
		Limits:       s.limits,
		TokenKeys:    r.tokenKeys(s),
		Resilience:   s.resilience,
		Socket:       s.option.listener,
		UpSocket:     s.option.upstream,
		Tuning:       s.option.process,
		Loops:        "1",
		Certificate:  r.identity.certificate,
		Key:          r.identity.key,
		Both:         r.identity.both,
	}
	if s.option.spread {
		result.Loops = "auto"
	}
	if s.kind == memoryPerInProgress {
		result.Connections = 3 * s.connections
	}
	if s.bodyReader {
		result.Upstream = r.upstreams.reader
	}
	if s.calls {
		result.Upstream, result.GRPC = r.upstreams.calls, true
	}
	if s.accessLog {
		result.AccessLog = filepath.Join(dir, "access.log")
	}
	return result, nil
}

// tokenKeys are what tokens are verified with; "": they are not looked at.
func (r *rig) tokenKeys(s scenario) string {
	if !s.tokens {
		return ""
	}
	return r.tokens.keys
}

// check proves, before anything is counted, that the proxy does the scenario's work: of one that knows no protocol, that it answers.
func check(ctx context.Context, s scenario, p peer, via client, address string) error {
	if s.kind != memoryPerInProgress { // a held request would wait for its release
		var body []byte
		switch {
		case s.calls:
			body = fill(callBytes)
		case s.method == http.MethodPost:
			body = fill(postBodyBytes)
		}
		status, answer, err := via.fetch(ctx, s.method, address, s.path, body, int64(s.reply.bodyBytes)+1)
		if err != nil {
			return err
		}
		if status != s.reply.status || len(answer) != s.reply.bodyBytes {
			return fmt.Errorf("wrong answer for %q: status %d with %d bytes, want %d with %d",
				s.path, status, len(answer), s.reply.status, s.reply.bodyBytes)
		}
		if !s.bodyReader && !bytes.Equal(answer, fill(s.reply.bodyBytes)) {
			return fmt.Errorf("wrong answer for %q: its bytes are not the upstream's", s.path)
		}
	}
	if p.bytes {
		return nil
	}
	status, seen, err := via.fetch(ctx, http.MethodGet, address, s.forwardedForPath(), nil, 1024)
	if err != nil {
		return err
	}
	if status != http.StatusOK || !bytes.Contains(seen, []byte(loopback)) {
		return fmt.Errorf("wrong work: the upstream saw X-Forwarded-For %q (status %d), want %s in it", seen, status, loopback)
	}
	if via.token != "" {
		via.token = ""
		status, _, err := via.fetch(ctx, http.MethodGet, address, s.path, nil, 64<<10)
		if err != nil {
			return err
		}
		if status != http.StatusUnauthorized {
			return fmt.Errorf("wrong answer without a token: status %d, want 401", status)
		}
	}
	if s.routes > 0 {
		path := routePrefix(s.routes+1) + "/item"
		status, _, err := via.fetch(ctx, http.MethodGet, address, path, nil, 64<<10)
		if err != nil {
			return err
		}
		if status != http.StatusNotFound {
			return fmt.Errorf("wrong answer for %q, which has no route: status %d, want 404", path, status)
		}
	}
	return nil
}

func (r *rig) measureCPU(ctx context.Context, s scenario, p *process, at site, result *sample) error {
	logged := 0
	if r.opts.warmupSeconds > 0 {
		warm, err := r.load(ctx, s, at.Listen, r.opts.warmupSeconds)
		if err != nil {
			return err
		}
		if err := warm.trouble(); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		logged = warm.requests
	}
	if !systemProc.resetPeak(p.pid()) {
		result.note = "peak memory includes the start"
	}
	if remark := s.option.remark(); remark != "" {
		result.note = remark
	}
	if err := pause(ctx, closeSettle); err != nil {
		return err
	}
	before, err := systemProc.cpu(p.pid())
	if err != nil {
		return err
	}
	if result.load, err = r.load(ctx, s, at.Listen, r.opts.seconds); err != nil {
		return err
	}
	if err := pause(ctx, closeSettle); err != nil {
		return err
	}
	after, err := systemProc.cpu(p.pid())
	if err != nil {
		return err
	}
	if err := result.load.trouble(); err != nil {
		return err
	}
	spent, agree := after.since(before)
	if !agree {
		result.note = "the kernel's two accounts of CPU time disagree, ticks were used"
	}
	result.value = float64(spent) / float64(time.Microsecond) / float64(result.load.requests)
	result.busy = spent.Seconds() / result.load.elapsed.Seconds()
	if result.peakKiB, err = systemProc.peakKiB(p.pid()); err != nil {
		return err
	}
	if at.AccessLog != "" {
		return checkLog(ctx, at.AccessLog, logged+result.load.requests)
	}
	return nil
}

// checkLog refuses a run whose access log lacks requests: dropped lines are cheap.
func checkLog(ctx context.Context, path string, want int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, logFlushLimit, errors.New("waited too long"))
	defer cancel()
	var lines int
	err := poll(ctx, func() (bool, error) {
		var err error
		lines, err = countJSONLines(path)
		if err == nil && lines < want {
			err = pause(ctx, logFlushLimit/10)
		}
		return lines >= want, err
	})
	if err != nil {
		return fmt.Errorf("access log has %d lines for %d requests: %w", lines, want, err)
	}
	return nil
}

// countJSONLines counts whole lines, of which the first must be a JSON object.
func countJSONLines(path string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("cannot open access log: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	chunk := make([]byte, 1<<20)
	lines := 0
	for first := true; ; first = false {
		n, err := file.Read(chunk)
		if first && n > 0 {
			line, _, _ := bytes.Cut(chunk[:n], []byte("\n"))
			if !json.Valid(line) || !slices.Contains(line, '{') {
				return 0, fmt.Errorf("access log is not JSON: %q", line)
			}
		}
		lines += bytes.Count(chunk[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return 0, fmt.Errorf("cannot read access log: %w", err)
		}
	}
}
