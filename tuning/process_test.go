package tuning

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"golang.org/x/sys/unix"
)

// restore puts the runtime's settings back after a test.
func restore(t *testing.T) {
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	t.Cleanup(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	})
}

func TestProcess(t *testing.T) {
	restore(t)
	h := hostOf(t, "bad") // 512 MiB
	f := func(p Process, limit uint64, percent int) {
		t.Helper()
		l, err := p.Apply(h)
		if err != nil || l.MemoryLimit != limit || l.MemoryBytes != 512<<20 || l.MemoryFrom != "cgroup" || l.CPUs < 1 {
			t.Errorf("%+v: %+v, %v", p, l, err)
		}
		samples := []metrics.Sample{{Name: "/gc/gomemlimit:bytes"}, {Name: "/gc/gogc:percent"}}
		metrics.Read(samples)
		if got := samples[0].Value.Uint64(); got != limit && limit != 0 {
			t.Errorf("%+v: the runtime keeps to %d", p, got)
		}
		if got := samples[1].Value.Uint64(); got != uint64(percent) {
			t.Errorf("%+v: the runtime's percent is %d", p, got)
		}
	}
	debug.SetMemoryLimit(math.MaxInt64)
	debug.SetGCPercent(100)
	f(Process{}, 0, 100)
	f(Process{MemoryShare: 0.75}, 384<<20, 100)
	f(Process{GCPercent: 150}, 384<<20, 150)
	f(Process{MemoryBytes: 1 << 40, MemoryShare: 0.5}, 1<<40, 150)
	if l, _ := (Process{MemoryShare: 0.5}).Apply(&Host{Files: os.DirFS(t.TempDir())}); l.MemoryBytes != 0 || l.MemoryLimit != 1<<40 {
		t.Errorf("of a host that tells nothing: %+v", l)
	}
}

// TestFilesAreRaised lowers the limit, which is raised again.
func TestFilesAreRaised(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if was.Max < 256 {
		t.Skip("the hard limit is too low")
	}
	low := unix.Rlimit{Cur: 200, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
	h := hostOf(t, "good")
	if l, err := (Process{}).Apply(h); err != nil || l.Files != 200 {
		t.Errorf("%+v, %v", l, err)
	}
	l, err := Process{Files: true}.Apply(h)
	var now unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &now)
	if err != nil || l.Files != was.Max || now.Cur != was.Max {
		t.Errorf("%+v, %+v, %v", l, now, err)
	}
}

func TestUsage(t *testing.T) {
	restore(t)
	debug.SetMemoryLimit(math.MaxInt64)
	if u := (&Host{Files: os.DirFS(t.TempDir())}).Usage(); u != (Usage{}) || u.Share() != 0 {
		t.Errorf("without any limit: %+v", u)
	}
	if u := hostOf(t, "bad").Usage(); u != (Usage{500_000_000, 512 << 20}) {
		t.Errorf("of a cgroup: %+v", u)
	}
	debug.SetMemoryLimit(64 << 20)
	held := make([]byte, 48<<20)
	for i := range held {
		held[i] = byte(i)
	}
	debug.FreeOSMemory()
	if u := hostOf(t, "good").Usage(); u.Limit != 64<<20 || u.Share() < 0.75 {
		t.Errorf("of the process: %+v, %v", u, u.Share())
	}
	runtime.KeepAlive(held)
	held = nil
	debug.FreeOSMemory()
	if u := hostOf(t, "good").Usage(); u.Share() > 0.6 {
		t.Errorf("after it was given back: %+v, %v", u, u.Share())
	}
}

func TestWatermark(t *testing.T) {
	w := Watermark{Above: 0.9}
	f := func(used uint64, over, changed bool) {
		t.Helper()
		if o, c := w.Over(Usage{used, 1000}); o != over || c != changed {
			t.Errorf("%d: %v, %v", used, o, c)
		}
	}
	f(0, false, false)
	f(899, false, false)
	f(900, true, true)
	f(1200, true, false)
	f(850, true, false) // between the two levels nothing changes
	f(899, true, false)
	f(849, false, true)
	f(899, false, false)
	f(950, true, true)
	w.Above = 0
	f(1000, false, true)
	f(1000, false, false)
	if o, c := w.Over(Usage{}); o || c {
		t.Errorf("without a limit: %v, %v", o, c)
	}
}

// TestCores reads back what may be dumped.
func TestCores(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &was) })
	f := func(c Cores, want uint64) {
		t.Helper()
		l, err := Process{Cores: c}.Apply(hostOf(t, "bad"))
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &now); err != nil {
			t.Fatal(err)
		}
		if err != nil || now.Cur != want || now.Max != was.Max || l.CoreBytes != want {
			t.Errorf("%d: %+v, %+v, %v", c, now, l, err)
		}
	}
	f(CoresOn, was.Max)
	f(CoresKept, was.Max)
	f(CoresOff, 0)
	f(CoresKept, 0)
	f(CoresOn, was.Max)
	if was.Max == 0 {
		t.Skip("the hard limit lets nothing be told apart")
	}
}
