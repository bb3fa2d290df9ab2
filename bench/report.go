package main

import (
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const missing = "–"

// report is everything that the Markdown text shows.
type report struct {
	machine machine
	command string
	started time.Time
	options options
	results []measurement
}

// failed tells whether any run was not counted.
func (r report) failed() bool {
	for _, m := range r.results {
		for _, samples := range m.samples {
			for _, s := range samples {
				if s.err != nil {
					return true
				}
			}
		}
	}
	return false
}

func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## Bench of %s\n\n", r.started.UTC().Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(&b, "`%s`\n\n", r.command)
	r.machine.write(&b)
	fmt.Fprintf(&b, "- Method: %d rounds with the peers taking turns, %d s of counted load a run, each run a fresh process; "+
		"CPU is user + system time of the proxy's process tree.\n", r.options.rounds, r.options.seconds)
	buffers := "their defaults, nginx 8 x 4 KiB and HAProxy 16 KiB (-large-buffers gives them 64 KiB)"
	if r.options.largeBuffers {
		buffers = "nginx 8 x 64 KiB, HAProxy 64 KiB"
	}
	fmt.Fprintf(&b, "- Body buffers of the peers: %s.\n", buffers)
	if slices.ContainsFunc(r.results, func(m measurement) bool { return m.scenario.wire.tls }) {
		fmt.Fprintf(&b, "- TLS, on every proxy and checked: %s, %s, %s, one ECDSA P-256 certificate.\n",
			cryptotls.VersionName(wantedVersion), cryptotls.CipherSuiteName(wantedSuite), wantedExchange)
	}
	b.WriteString("\n")
	r.writeCPU(&b)
	r.writeMemory(&b)
	r.writeLoad(&b)
	r.writeRemarks(&b)
	return b.String()
}

// of chooses the scenarios that yield CPU time, or those that yield memory.
func (r report) of(cpu bool) []measurement {
	var chosen []measurement
	for _, m := range r.results {
		if (m.scenario.kind == cpuPerRequest) == cpu && len(m.peers) > 0 {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// writeCPU writes the scenarios that compare with the peers, and apart from them those that compare the subject with itself.
func (r report) writeCPU(b *strings.Builder) {
	var outside, inside, options []measurement
	for _, m := range r.of(true) {
		switch {
		case m.scenario.option.name != "":
			options = append(options, m)
		case m.scenario.againstItself():
			inside = append(inside, m)
		default:
			outside = append(outside, m)
		}
	}
	writeCPUTable(b, "", outside)
	writeCPUTable(b, ", with what is named and without", inside)
	writeOptions(b, options)
}

func writeCPUTable(b *strings.Builder, what string, results []measurement) {
	if len(results) == 0 {
		return
	}
	peers := slices.MaxFunc(results, func(m, n measurement) int { return len(m.peers) - len(n.peers) }).peers
	fmt.Fprintf(b, "### CPU time per request%s (µs): median, minimum in brackets\n\n", what)
	header := []string{"scenario"}
	for _, p := range peers {
		header = append(header, p.name)
	}
	for _, p := range peers {
		if p.name != subject {
			header = append(header, subject+" / "+p.name)
		}
	}
	header = append(header, "/ better, medians", "/ better, minima", "target", "verdict")
	writeRow(b, header)
	writeRule(b, len(header))
	for _, m := range results {
		summaries := m.summaries()
		against := compare(summaries)
		row := []string{m.scenario.name}
		for _, p := range peers {
			row = append(row, summaries[p.name].cell())
		}
		for _, p := range peers {
			if p.name != subject {
				row = append(row, ratioCell(against.ratio(p.name)))
			}
		}
		row = append(row, ratioCell(against.betterMedian), ratioCell(against.betterMin), targetCell(m.scenario),
			string(judge(m.scenario, summaries[subject], against)))
		writeRow(b, row)
	}
	b.WriteString("\n")
}

// writeOptions writes what each socket option costs or saves: it saves below 1.00. How far the ratios of medians and of minima are apart
// shows the noise.
func writeOptions(b *strings.Builder, results []measurement) {
	if len(results) == 0 {
		return
	}
	b.WriteString("### CPU time per request with an option and without (µs): median, minimum in brackets\n\n" +
		"incoming_cpu and steer choose among loops: there Sluice has all processors, with a loop for each, and shares them with the load.\n\n")
	header := []string{"scenario", "listener", "upstream", "process", "on", "off", "on / off, medians", "on / off, minima", "requests/s, on / off"}
	writeRow(b, header)
	writeRule(b, len(header))
	for _, m := range results {
		on, off := summarize(m.samples[0]), summarize(m.samples[1])
		rate := func(i int) float64 {
			return medianOf(m.samples[i], func(s sample) float64 { return s.load.perSecond() })
		}
		writeRow(b, []string{m.scenario.name, optionCell(m.scenario.option.listener), optionCell(m.scenario.option.upstream), optionCell(m.scenario.option.process), on.cell(), off.cell(),
			ratioCell(on.median / off.median), ratioCell(on.min / off.min), ratioCell(rate(0) / rate(1))})
	}
	b.WriteString("\n")
}

func optionCell(text string) string {
	if text == "" {
		return missing
	}
	return "`" + text + "`"
}

func (r report) writeMemory(b *strings.Builder) {
	results := r.of(false)
	if len(results) == 0 {
		return
	}
	peers := results[0].peers
	b.WriteString("### Memory per connection (KiB of RSS above the freshly started proxy): median, minimum in brackets\n\n")
	header := []string{"scenario", "connections"}
	for _, p := range peers {
		header = append(header, p.name)
	}
	for _, p := range peers {
		header = append(header, p.name+", whole (MiB)")
	}
	header = append(header, "/ better, medians", "/ better, minima", "target for "+subject, "verdict")
	writeRow(b, header)
	writeRule(b, len(header))
	for _, m := range results {
		summaries := m.summaries()
		row := []string{m.scenario.name, fmt.Sprint(m.scenario.connections)}
		for _, p := range peers {
			row = append(row, summaries[p.name].cell())
		}
		for i := range peers {
			row = append(row, number(medianOf(m.samples[i], func(s sample) float64 { return float64(s.residentKiB) / 1024 }), 1))
		}
		against := compare(summaries)
		row = append(row, ratioCell(against.betterMedian), ratioCell(against.betterMin), targetCell(m.scenario),
			string(judge(m.scenario, summaries[subject], against)))
		writeRow(b, row)
	}
	b.WriteString("\n")
}

func (r report) writeLoad(b *strings.Builder) {
	results := r.of(true)
	if len(results) == 0 {
		return
	}
	b.WriteString("### Load seen by its generator, and memory (medians)\n\n")
	header := []string{"scenario", "peer", "generator", "requests/s", "mean", "p50", "p99", "core used (%)", "peak RSS (MiB)", "counted runs"}
	writeRow(b, header)
	writeRule(b, len(header))
	for _, m := range results {
		for i, p := range m.peers {
			samples := m.samples[i]
			total := summarize(samples)
			writeRow(b, []string{
				m.scenario.name, p.name, m.scenario.generator().name,
				number(medianOf(samples, func(s sample) float64 { return s.load.perSecond() }), 0),
				latency(medianOf(samples, func(s sample) float64 { return float64(s.load.mean) })),
				latency(medianOf(samples, func(s sample) float64 { return float64(s.load.p50) })),
				latency(medianOf(samples, func(s sample) float64 { return float64(s.load.p99) })),
				number(medianOf(samples, func(s sample) float64 { return 100 * s.busy }), 0),
				number(medianOf(samples, func(s sample) float64 { return float64(s.peakKiB) / 1024 }), 1),
				fmt.Sprintf("%d of %d", total.runs-total.failed, total.runs),
			})
		}
	}
	b.WriteString("\n")
}

// writeRemarks lists every failed run and every note, so that no figure looks better than it is.
func (r report) writeRemarks(b *strings.Builder) {
	var lines []string
	for _, m := range r.results {
		for i, p := range m.peers {
			for round, s := range m.samples[i] {
				where := fmt.Sprintf("- %s, %s, round %d: ", m.scenario.name, p.name, round+1)
				if s.err != nil {
					lines = append(lines, where+"**failed, not counted**: "+strings.Join(strings.Fields(s.err.Error()), " "))
				} else if s.note != "" {
					lines = append(lines, where+s.note)
				}
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString("### Remarks\n\n" + strings.Join(lines, "\n") + "\n\n")
}

func (m measurement) summaries() map[string]summary {
	all := make(map[string]summary, len(m.peers))
	for i, p := range m.peers {
		all[p.name] = summarize(m.samples[i])
	}
	return all
}

func (s summary) cell() string {
	if s.runs == 0 {
		return missing
	}
	if math.IsNaN(s.median) {
		return fmt.Sprintf("failed %d of %d", s.failed, s.runs)
	}
	text := number(s.median, 2) + " (" + number(s.min, 2) + ")"
	if s.failed > 0 {
		text += fmt.Sprintf(", failed %d of %d", s.failed, s.runs)
	}
	return text
}

func targetCell(s scenario) string {
	if s.target == 0 {
		return missing
	}
	switch {
	case s.kind == cpuPerRequest:
		return fmt.Sprintf("<= %g", s.target)
	case s.againstPeers:
		return fmt.Sprintf("<= %g x the better", s.target)
	}
	return fmt.Sprintf("<= %g KiB", s.target)
}

func ratioCell(ratio float64) string { return number(ratio, 2) }

func number(value float64, decimals int) string {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return missing
	}
	return fmt.Sprintf("%.*f", decimals, value)
}

// latency takes 0 for what the generator does not tell.
func latency(nanoseconds float64) string {
	if math.IsNaN(nanoseconds) || nanoseconds == 0 {
		return missing
	}
	return time.Duration(nanoseconds).Round(time.Microsecond).String()
}

func writeRow(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func writeRule(b *strings.Builder, columns int) {
	b.WriteString(strings.Repeat("|---", columns) + "|\n")
}

// saveReport appends to the day's file: a short run of one scenario must not wipe out a long one of all.
func saveReport(folder string, started time.Time, text string) (err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("cannot make folder of results: %w", err)
	}
	path := filepath.Join(folder, started.UTC().Format(time.DateOnly)+".md")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("cannot open results: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.WriteString(text); err != nil {
		return fmt.Errorf("cannot write results: %w", err)
	}
	return nil
}
