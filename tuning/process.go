package tuning

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"golang.org/x/sys/unix"
)

// Process is how this process is fitted to its host. The zero value changes nothing.
//
// The number of processors is not among it: since Go 1.25 the runtime takes it from affinity, which Pin changes, and the cgroup's
// quota.
type Process struct {
	MemoryShare float64 // of what Host.Memory tells, 0..1, that the runtime keeps to; 0: see MemoryBytes
	MemoryBytes int64   // that the runtime keeps to; 0: it is left as it is
	GCPercent   int     // growth of the heap between collections; 0: it is left as it is
	Files       bool    // the limit of descriptors is raised as far as it may be
	Cores       Cores   // what may be written of the memory when the process crashes
}

// Cores says whether the kernel may write the memory, with the secrets in it, to a file when the process crashes.
//
// A program that the kernel pipes such dumps to is not bound by it. That of systemd keeps to it.
type Cores uint8

const (
	CoresKept Cores = iota // the limit is left as it is
	CoresOff               // nothing is written
	CoresOn                // as much as may be
)

// Limits are what a process may use.
type Limits struct {
	CPUs        int    `json:"cpus"`         // that run Go code at once
	MemoryBytes uint64 `json:"memory_bytes"` // of the cgroup or the host; 0: not known
	MemoryFrom  string `json:"memory_from,omitempty"`
	MemoryLimit uint64 `json:"memory_limit"` // that the runtime keeps to; 0: none
	Files       uint64 `json:"files"`
	CoreBytes   uint64 `json:"core_bytes"` // of a core dump; all bits: no limit
}

// Apply fits the process. It may be called again with other settings: what these leave as it is keeps what it was given before.
// The error is of descriptors, or of core dumps: everything else is in force then.
func (p Process) Apply(h *Host) (Limits, error) {
	l := Limits{CPUs: runtime.GOMAXPROCS(0)}
	l.MemoryBytes, l.MemoryFrom = h.Memory()
	switch {
	case p.MemoryBytes > 0:
		debug.SetMemoryLimit(p.MemoryBytes)
	case p.MemoryShare > 0 && l.MemoryBytes > 0:
		debug.SetMemoryLimit(int64(p.MemoryShare * float64(l.MemoryBytes)))
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		l.MemoryLimit = uint64(limit)
	}
	if p.GCPercent > 0 {
		debug.SetGCPercent(p.GCPercent)
	}
	var err error
	l.Files, err = fileLimit(p.Files)
	var also error
	l.CoreBytes, also = coreLimit(p.Cores)
	return l, errors.Join(err, also)
}

// coreLimit gives the limit of core dumps, lowered to nothing or raised to the hard one if that is wanted. The hard one stays, so that a change of the
// configuration can bring dumps back.
func coreLimit(c Cores) (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return 0, fmt.Errorf("cannot read the limit of core dumps: %w", err)
	}
	want := l
	switch c {
	case CoresOff:
		want.Cur = 0
	case CoresOn:
		want.Cur = l.Max
	}
	if want == l {
		return l.Cur, nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &want); err != nil {
		return l.Cur, fmt.Errorf("cannot set the limit of core dumps to %d: %w", want.Cur, err)
	}
	return want.Cur, nil
}

// fileLimit gives the limit of descriptors, raised to the hard one if raise is set. The runtime has done that already unless the limit
// was lowered since.
func fileLimit(raise bool) (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("cannot read the limit of descriptors: %w", err)
	}
	if !raise || l.Cur >= l.Max {
		return l.Cur, nil
	}
	want := unix.Rlimit{Cur: l.Max, Max: l.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		return l.Cur, fmt.Errorf("cannot raise the limit of descriptors from %d to %d: %w", l.Cur, l.Max, err)
	}
	return l.Max, nil
}

// Usage is how full the memory is: bytes used of a limit. The zero Usage is of a limit that is not known.
type Usage struct{ Used, Limit uint64 }

// Share is used by limit; 0 where there is no limit.
func (u Usage) Share() float64 {
	if u.Limit == 0 {
		return 0
	}
	return float64(u.Used) / float64(u.Limit)
}

// The runtime's figures of what a collection would not give back: what was alive at the last one, stacks, and its own.
var retained = [...]string{
	"/gc/heap/live:bytes",
	"/memory/classes/heap/stacks:bytes",
	"/memory/classes/metadata/mcache/inuse:bytes",
	"/memory/classes/metadata/mspan/inuse:bytes",
	"/memory/classes/metadata/other:bytes",
	"/memory/classes/os-stacks:bytes",
	"/memory/classes/other:bytes",
	"/memory/classes/profiling/buckets:bytes",
}

// Usage is what this process uses of its limit, or its cgroup of its own, whichever is fuller. Of the process it is what a collection
// would not give back: the garbage in a heap that may grow to its limit is no reason for alarm. Of the cgroup it is what the
// kernel's killer looks at, in which the buffers of sockets count too.
func (h *Host) Usage() Usage {
	var u Usage
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		samples := make([]metrics.Sample, len(retained))
		for i, name := range retained {
			samples[i].Name = name
		}
		metrics.Read(samples)
		u.Limit = uint64(limit)
		for _, s := range samples {
			if s.Value.Kind() == metrics.KindUint64 {
				u.Used += s.Value.Uint64()
			}
		}
	}
	if used, limit, ok := h.GroupMemory(); ok && (Usage{used, limit}).Share() > u.Share() {
		u = Usage{used, limit}
	}
	return u
}
