package probe

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close() // Go's netpoller keeps descriptors of its own from its first use on
	}
	before := descriptors()
	code := m.Run()
	for deadline := time.Now().Add(5 * time.Second); descriptors() > before || ownGoroutines() != ""; {
		if time.Now().After(deadline) {
			fmt.Printf("FAIL: the tests left %d descriptors and these goroutines:\n%s\n", descriptors()-before, ownGoroutines())
			code = 1
			break
		}
		runtime.GC() // package net keeps pipes of io.Copy for the next one, until they are collected
		time.Sleep(5 * time.Millisecond)
	}
	os.Exit(code)
}

func descriptors() int {
	d, _ := os.ReadDir("/proc/self/fd")
	return len(d)
}

func ownGoroutines() (own string) {
	b := make([]byte, 1<<20)
	for i, stack := range strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n") {
		if i > 0 && strings.Contains(stack, "sluice-gateway/sluice/") {
			own += stack + "\n\n"
		}
	}
	return own
}
