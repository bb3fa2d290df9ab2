// Package leak finds what the tests of a package leave behind: goroutines that run something of this module, coroutines included, and
// descriptors. Only tests use it: from TestMain by Check, and around a part of a test by Look and Left.
package leak

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"time"
)

// module begins the names of this module's functions in a stack.
const module = "sluice-gateway/sluice/"

// connects is in the stack of a connection of gRPC that nobody has closed: it tries again and again, whoever has its address by then.
const connects = "google.golang.org/grpc.(*addrConn)"

// patience is how long Check waits for what is about to end.
const patience = 10 * time.Second

// pause is the time between two looks.
const pause = 5 * time.Millisecond

// Held is what a process has at one moment.
type Held struct {
	descriptors int
	goroutines  []string // their stacks
}

// Look gives what is held now, the caller apart. Goroutines of libraries are not counted, since some outlive every use by design, but for
// those of gRPC that connect; nor are tests that wait for those below or beside them. Descriptors are those of the whole process.
func Look() Held {
	open, _ := os.ReadDir("/proc/self/fd")
	return Held{len(open), goroutines()}
}

// Left waits, for so long at most, until no more is held than before. It says what is if that does not come to pass, and else "".
func (before Held) Left(patience time.Duration) string {
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		runtime.GC() // connections that were dropped, and the pipes that package net keeps for the next io.Copy
		now := Look()
		if now.descriptors <= before.descriptors && len(now.goroutines) <= len(before.goroutines) {
			return ""
		}
		if time.Now().After(deadline) {
			return fmt.Sprintf("%d descriptors, before %d; %d goroutines, before %d:\n%s", now.descriptors, before.descriptors,
				len(now.goroutines), len(before.goroutines), strings.Join(now.goroutines, "\n\n"))
		}
	}
}

// Check runs the tests of a package, as testing.M does, and gives the code with which the process is to exit: theirs, or 1 when they
// have left something. That is written to the standard output.
func Check(run func() int) int {
	code, left := check(run, patience)
	if left != "" {
		fmt.Println("FAIL: the tests left", left)
	}
	return code
}

func check(run func() int, patience time.Duration) (code int, left string) {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close() // Go's netpoller keeps descriptors of its own from its first use on
	}
	before := Look()
	code = run()
	if left = before.Left(patience); left != "" {
		code = 1
	}
	return code, left
}

func goroutines() (own []string) {
	b := make([]byte, 64<<10)
	n := runtime.Stack(b, true)
	for n == len(b) { // there may be more
		b = make([]byte, 2*len(b))
		n = runtime.Stack(b, true)
	}
	for i, stack := range strings.Split(string(b[:n]), "\n\n") {
		waits := strings.Contains(stack, "testing.(*T).Run(") || strings.Contains(stack, "testing.(*T).Parallel(")
		if i > 0 && !waits && (strings.Contains(stack, module) || strings.Contains(stack, connects)) {
			own = append(own, stack)
		}
	}
	return own
}
