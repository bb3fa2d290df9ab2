package loop

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// childVariable marks the process of a test that runs in one of its own: it changes what belongs to the whole process.
const childVariable = "SLUICE_LOOP_TEST_CHILD"

// TestMain fails the run when a test leaves a goroutine, a coroutine or a descriptor behind.
func TestMain(m *testing.M) {
	// Go's netpoller keeps descriptors of its own from its first use on.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close()
	}
	fds := countFDs()
	code := m.Run()
	for deadline := time.Now().Add(5 * time.Second); ; {
		runtime.GC()
		leftFDs, left := countFDs()-fds, leftGoroutines()
		if leftFDs <= 0 && left == "" {
			break
		}
		if time.Now().After(deadline) {
			fmt.Printf("FAIL: the tests left %d descriptors and these goroutines:\n%s\n", leftFDs, left)
			code = 1
			break
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	os.Exit(code)
}

// countFDs counts the open descriptors of the process.
func countFDs() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(d)
}

// leftGoroutines gives the stacks of the goroutines, coroutines included, that run something of this package.
func leftGoroutines() (left string) {
	for _, stack := range strings.Split(stacks(), "\n\n") {
		if strings.Contains(stack, "sluice/core/loop.") && !strings.Contains(stack, "loop.TestMain") {
			left += stack + "\n\n"
		}
	}
	return left
}
