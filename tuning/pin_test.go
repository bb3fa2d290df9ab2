package tuning

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

func TestCPUs(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		c, err := ParseCPUs(text)
		if got := c.String(); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	f("0", "0")
	f("2-5,8", "2-5,8")
	f("8,2-3,4,5,3", "2-5,8")
	f("0,2,4", "0,2,4")
	f("1022-1023", "1022-1023")
	for _, bad := range []string{"", ",", "1,", "-1", "2-1", "a", "1 2", "0-99999999999999999999", strings.Repeat("0-8191,", 100)} {
		if c, err := ParseCPUs(bad); err == nil {
			t.Errorf("%q is read as %v", bad, c)
		}
	}
}

// TestMayPin asks recorded hosts for processors that they do not have, have switched off, or do not give to the process.
func TestMayPin(t *testing.T) {
	files := fstest.MapFS{
		"sys/devices/system/cpu/present": {Data: []byte("0-7\n")},
		"sys/devices/system/cpu/online":  {Data: []byte("0-3,5-7\n")},
		"proc/self/status":               {Data: []byte("Cpus_allowed_list:\t0-5\n")},
	}
	f := func(h *Host, cpus CPUs, want string) {
		t.Helper()
		switch err := h.MayPin(cpus, h.Allowed()); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", cpus, err, want)
		}
	}
	h := &Host{Files: files}
	f(h, CPUs{0, 1, 2, 3, 5}, "")
	f(h, CPUs{0, 8}, "this host has no processor 8: it has 0-7")
	f(h, CPUs{4}, "processor 4 is offline: write 1 to /sys/devices/system/cpu/cpu4/online")
	f(h, CPUs{5, 6}, "processor 6 is not among those that the process may use, 0-5: see CPUAffinity=")
	f(h, nil, "on one at least")
	f(h, CPUs{1024}, "processors 0 to 1023")
	f(&Host{Files: fstest.MapFS{}}, CPUs{0}, "") // a host that tells nothing: the kernel has the word
	for err, want := range map[error]string{unix.EPERM: "affinity.conf", unix.EINVAL: "AllowedCPUs="} {
		if got := pinError(err); !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if err := Pin(CPUs{mostPinned - 1}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a processor that is not there: %v", err)
	}
}

// pinVariable says in a child process where it is to pin itself.
const pinVariable = "SLUICE_TEST_PIN"

// TestPin has a process pin itself while it makes threads as fast as it can, and widen again, as one does that a pinned one has
// started. None of its threads is left out.
func TestPin(t *testing.T) {
	if text := os.Getenv(pinVariable); text != "" {
		pinned(t, text)
		return
	}
	all := CPUs(AllowedCPUs())
	if len(all) < 2 {
		t.Skip("there is one processor")
	}
	child := exec.Command(os.Args[0], "-test.run=^TestPin$", "-test.timeout=60s")
	child.Env = append(os.Environ(), pinVariable+"="+all[:1].String()+";"+all.String()+";"+all[1:2].String())
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func pinned(t *testing.T, lists string) {
	var stop sync.WaitGroup
	over := make(chan struct{})
	for range 4 {
		stop.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				var few sync.WaitGroup
				for range 8 {
					few.Go(func() { // a thread that ends with its goroutine
						runtime.LockOSThread()
						time.Sleep(100 * time.Microsecond)
					})
				}
				few.Wait()
			}
		})
	}
	defer stop.Wait()
	defer close(over)
	to := strings.Split(lists, ";")
	for i := range 300 { // often enough that threads are made in the middle of it
		text := to[i%len(to)]
		cpus, err := ParseCPUs(text)
		if err == nil {
			err = Pin(cpus)
		}
		if err == nil {
			err = everyThreadOn(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(to) {
			continue
		}
		runtime.SetDefaultGOMAXPROCS()
		if n := runtime.GOMAXPROCS(0); n > max(len(cpus), 2) {
			t.Errorf("GOMAXPROCS is %d on %s", n, cpus)
		}
	}
}

// everyThreadOn reads what the kernel says of every thread.
func everyThreadOn(list string) error {
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("%d threads: %v", len(tasks), err)
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil { // it has ended
			continue
		}
		if got := columns(string(text), "Cpus_allowed_list:"); len(got) != 1 || got[0] != list {
			return fmt.Errorf("%s has %q, want %q", name, got, list)
		}
	}
	return nil
}
