package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// leakChecked fails a test run that leaves goroutines behind.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code != 0 {
		return code
	}
	err := eventually(patience, func() error {
		if left := strayGoroutines(); len(left) > 0 {
			return fmt.Errorf("%d goroutines are left:\n\n%s", len(left), strings.Join(left, "\n\n"))
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// strayGoroutines returns the stacks of all goroutines but the caller's and those of the runtime's signal handling.
func strayGoroutines() []string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var stray []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 || strings.Contains(stack, "os/signal.loop") || strings.Contains(stack, "os/signal.signal_recv") {
			continue
		}
		stray = append(stray, stack)
	}
	return stray
}
