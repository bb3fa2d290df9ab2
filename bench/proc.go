package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc/PID/stat: USER_HZ is 100 on every architecture that Go supports.
const clockTick = 10 * time.Millisecond

// procfs is the mount point of a proc file system.
type procfs string

const systemProc procfs = "/proc"

// cpuTime is what a process tree has consumed, by two accounts of the kernel.
type cpuTime struct {
	ticks time.Duration // user + system of all threads, children that were reaped included, to 10 ms
	exact time.Duration // time on a processor of all living threads, to 1 ns; 0 where the kernel does not tell
}

// processStat is the part of /proc/PID/stat that the bench needs.
type processStat struct {
	parent int
	ticks  time.Duration
}

// tree lists root and its descendants.
func (p procfs) tree(root int) ([]int, error) {
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	children := make(map[int][]int)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := p.stat(pid)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		children[stat.parent] = append(children[stat.parent], pid)
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// cpu sums the CPU time of the tree under root.
func (p procfs) cpu(root int) (cpuTime, error) {
	var sum cpuTime
	pids, err := p.tree(root)
	if err != nil {
		return sum, err
	}
	exactKnown := true
	for _, pid := range pids {
		stat, err := p.stat(pid)
		if err != nil && (pid == root || !gone(err)) {
			return sum, err
		}
		sum.ticks += stat.ticks
		exact, err := p.runTime(pid)
		if err != nil && !gone(err) {
			return sum, err
		}
		exactKnown = exactKnown && err == nil
		sum.exact += exact
	}
	if !exactKnown {
		sum.exact = 0
	}
	return sum, nil
}

// since is the CPU time consumed after before was taken, by the finer account if it can be trusted.
// The accounts are of the same run queue clock; they part only when a thread or a process has ended, which the finer one
// forgets, or when the kernel does not keep it.
func (c cpuTime) since(before cpuTime) (spent time.Duration, agree bool) {
	ticks := c.ticks - before.ticks
	exact := c.exact - before.exact
	if c.exact == 0 || before.exact == 0 {
		return ticks, true
	}
	const rounding = 4 * clockTick // user and system of two processes, each cut to a tick at both ends
	if difference := (ticks - exact).Abs(); difference > rounding+ticks/50 {
		return ticks, false
	}
	return exact, true
}

func (p procfs) stat(pid int) (processStat, error) {
	text, err := os.ReadFile(p.path(pid, "stat"))
	if err != nil {
		return processStat{}, fmt.Errorf("cannot read CPU time: %w", err)
	}
	return parseStat(text)
}

// parseStat reads the fields by their numbers in proc(5). The name in parentheses may itself hold spaces and parentheses.
func parseStat(text []byte) (processStat, error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return processStat{}, fmt.Errorf("cannot parse process stat %q: no name", text)
	}
	const (
		firstField = 3 // the one after the name
		parent     = 4
		userTime   = 14 // followed by system time, and both of reaped children
		childTime  = 17
	)
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) <= childTime-firstField {
		return processStat{}, fmt.Errorf("cannot parse process stat %q: %d fields after the name", text, len(fields))
	}
	var stat processStat
	var err error
	if stat.parent, err = strconv.Atoi(fields[parent-firstField]); err != nil {
		return processStat{}, fmt.Errorf("cannot parse parent in process stat: %w", err)
	}
	for n := userTime; n <= childTime; n++ {
		ticks, err := strconv.ParseInt(fields[n-firstField], 10, 64)
		if err != nil {
			return processStat{}, fmt.Errorf("cannot parse field %d of process stat: %w", n, err)
		}
		stat.ticks += time.Duration(ticks) * clockTick
	}
	return stat, nil
}

// runTime sums the first number of task/TID/schedstat, the thread's time on a processor in user and system mode.
func (p procfs) runTime(pid int) (time.Duration, error) {
	tasks, err := os.ReadDir(p.path(pid, "task"))
	if err != nil {
		return 0, fmt.Errorf("cannot list threads: %w", err)
	}
	var sum time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(p.path(pid, "task", task.Name(), "schedstat"))
		if err != nil {
			return 0, fmt.Errorf("cannot read run time: %w", err)
		}
		first, _, _ := strings.Cut(string(text), " ")
		nanoseconds, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot parse run time: %w", err)
		}
		sum += time.Duration(nanoseconds)
	}
	return sum, nil
}

// peakKiB sums the high-water marks of resident memory. Processes need not peak together, so it is an upper bound.
func (p procfs) peakKiB(root int) (int64, error) {
	return p.sum(root, "VmHWM:", "status")
}

// residentKiB sums resident memory now. smaps_rollup counts pages; status is only its approximation, off by up to
// a batch of pages for each processor.
func (p procfs) residentKiB(root int) (int64, error) {
	resident, err := p.sum(root, "Rss:", "smaps_rollup")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return p.sum(root, "VmRSS:", "status")
	}
	return resident, err
}

func (p procfs) sum(root int, field, file string) (int64, error) {
	pids, err := p.tree(root)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(p.path(pid, file))
		if err != nil {
			return 0, fmt.Errorf("cannot read memory: %w", err)
		}
		value, err := parseKiB(text, field)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
}

// parseKiB finds a line such as "VmHWM:	    1234 kB".
func parseKiB(text []byte, field string) (int64, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[0] != field || fields[2] != "kB" {
			continue
		}
		value, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot parse %q: %w", lines.Text(), err)
		}
		return value, nil
	}
	return 0, fmt.Errorf("cannot find %q in process status", field)
}

// resetPeak starts the high-water marks anew, see clear_refs in proc(5). It reports whether it could.
func (p procfs) resetPeak(root int) bool {
	pids, err := p.tree(root)
	if err != nil {
		return false
	}
	for _, pid := range pids {
		if os.WriteFile(p.path(pid, "clear_refs"), []byte("5"), 0) != nil {
			return false
		}
	}
	return true
}

func (p procfs) path(pid int, parts ...string) string {
	return filepath.Join(append([]string{string(p), strconv.Itoa(pid)}, parts...)...)
}

// gone tells that a process or thread ended between being listed and being read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoSuchProcess)
}
