package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// until polls, for a bounded time.
func until(ctx context.Context, limit time.Duration, done func() bool) error {
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			return errors.New("it takes too long")
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// stat gives the state and parent of a process; ok is false when it is gone.
func stat(pid int) (state string, parent int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

func alive(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state != "Z"
}

// processes are those whose command line is wanted.
func processes(wanted func(pid int, line []string) bool) (all []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !alive(pid) {
			continue
		}
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if wanted(pid, strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")) {
			all = append(all, pid)
		}
	}
	return all
}

// descendants are the living children of a process, and theirs. They are asked for often: /proc is read once.
func descendants(of int) (all []int) {
	entries, _ := os.ReadDir("/proc")
	children := map[int][]int{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if state, parent, ok := stat(pid); ok && state != "Z" {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	for next := []int{of}; len(next) > 0; next = next[1:] {
		all = append(all, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return all
}
