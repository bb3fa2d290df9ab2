package server

import (
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluice-gateway/sluice/tuning"
)

// quotaHost is a host that allows processors, under a cgroup's quota of time (cpu.max).
func quotaHost(allowed, quota string) *tuning.Host {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/self/status":             "Cpus_allowed_list:\t" + allowed + "\n",
		"proc/self/cgroup":             "0::/sluice\n",
		"sys/fs/cgroup/cpu.max":        "max 100000\n",
		"sys/fs/cgroup/sluice/cpu.max": quota + "\n",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return &tuning.Host{Files: files}
}

// TestQuotaIsKept divides processors between loops and awaited work. Without a quota that binds awaited work has one more than may run at
// once; with one nothing is beyond it but what the runtime or GOMAXPROCS of the environment has chosen.
func TestQuotaIsKept(t *testing.T) {
	f := func(allowed, quota string, wanted, chosen, loops, processors int) {
		t.Helper()
		p := &pinning{host: quotaHost(allowed, quota)}
		if l, n := p.divide(wanted, chosen); l != loops || n != processors {
			t.Errorf("processors %s, quota %s, %d loops wanted, GOMAXPROCS %d: %d loops on %d, want %d on %d", allowed, quota, wanted, chosen, l, n, loops, processors)
		}
	}
	const none, two, half = "max 100000", "200000 100000", "50000 100000"
	f("0-15", none, 0, 16, 16, 17)
	f("0-15", none, 4, 16, 4, 16)
	f("0-15", none, 20, 16, 20, 21)
	f("0", none, 0, 1, 1, 2)
	f("0-15", two, 0, 2, 1, 2)
	f("0-15", two, 2, 2, 2, 2) // 3 of them would be stopped a third of the time
	f("0-15", two, 1, 2, 1, 2)
	f("0-15", two, 8, 2, 8, 2)
	f("0-15", half, 0, 2, 1, 2) // the runtime goes no lower
	f("0-15", "250000 100000", 0, 3, 2, 3)
	f("0-15", "800000 100000", 0, 8, 7, 8)
	f("0-15", "800000 100000", 4, 8, 4, 8)
	f("0-15", "9900000 100000", 0, 16, 16, 17) // more than there are
	f("0-1", two, 0, 2, 2, 3)                  // what affinity allows cannot exceed it
	f("0-15", two, 0, 1, 1, 2)                 // GOMAXPROCS=1
	f("0-15", two, 0, 4, 3, 4)                 // GOMAXPROCS=4

	h := quotaHost("", two) // the host does not tell what is allowed
	if l, n := (&pinning{host: h}).divide(0, 2); l != 1 || n != 2 {
		t.Errorf("%d loops on %d", l, n)
	}
}

// TestLoopsTakeTheQuota sets what was divided, and tells when awaited work has no processor beside the loops.
func TestLoopsTakeTheQuota(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	f := func(loops, processors int, told bool) {
		t.Helper()
		j := &journal{}
		s := &Server{log: slog.New(slog.NewTextHandler(io.Writer(j), nil))}
		s.runOn(loops, processors)
		if n := runtime.GOMAXPROCS(0); n != processors || strings.Contains(j.String(), "take all processors") != told {
			t.Errorf("%d loops on %d: GOMAXPROCS is %d: %s", loops, processors, n, j)
		}
	}
	f(2, 2, true)
	f(2, 3, false)
}
