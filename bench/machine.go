package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const versionTimeout = 5 * time.Second

// machine is what a reader must know to judge the figures.
type machine struct {
	kernel   string
	cpuModel string
	cpus     processors
	versions []string
}

func describeMachine(ctx context.Context, peers []peer, scenarios []scenario, cpus processors) machine {
	m := machine{kernel: kernelRelease(), cpuModel: "unknown processor", cpus: cpus}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := cpuModel(text); model != "" {
			m.cpuModel = model
		}
	}
	for _, p := range peers {
		if p.bytes {
			continue // this program
		}
		m.versions = append(m.versions, p.name+": "+version(ctx, p.binary, p.versionArgs...))
	}
	m.versions = append(m.versions, wrkBinary+": "+version(ctx, wrkBinary, "-v"))
	if slices.ContainsFunc(scenarios, func(s scenario) bool { return s.tool() == h2loadBinary }) {
		m.versions = append(m.versions, h2loadBinary+": "+version(ctx, h2loadBinary, "--version"))
	}
	m.versions = append(m.versions, "go: "+runtime.Version())
	return m
}

func (m machine) write(b *strings.Builder) {
	fmt.Fprintf(b, "- Machine: %s, Linux %s, %s; proxy on processor %v, upstream and load on %v\n",
		m.cpuModel, m.kernel, runtime.GOARCH, m.cpus.proxy, m.cpus.load)
	fmt.Fprintf(b, "- Versions: %s\n", strings.Join(m.versions, "; "))
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// cpuModel is the first model name in /proc/cpuinfo.
func cpuModel(text []byte) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// version is the first line that a program prints about itself. wrk ends with an error when asked.
func version(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	text, _ := exec.CommandContext(ctx, program, args...).CombinedOutput() //nolint:errcheck // an empty text says so
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if first == "" {
		return "unknown version"
	}
	return strings.TrimSpace(first)
}
