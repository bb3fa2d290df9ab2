package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Tuning is how the process is fitted to its host. The file says auto, off (zero), or a map of what differs from auto.
type Tuning struct {
	MemoryPercent float64 // of the cgroup's or host's memory, that the runtime keeps to, 10..100; 80; 0: see MemoryBytes
	MemoryBytes   int64   // that it keeps to, 32MiB or more; 0: see MemoryPercent; with both 0 it keeps to nothing
	GCPercent     int     // growth of the heap between collections, 10..1000; 0: see GCAuto
	GCAuto        bool    // it follows how fast garbage grows, true; with neither it is the runtime's own
	RaiseFiles    bool    // the limit of descriptors is raised as far as it may be; true
	ShedPercent   float64 // of the memory, from which on no connections are taken, 50..100; 90; 0: never
	CoreDumps     string  // off: the memory, which has secrets in it, is not written to a file in a crash; on: it may be; "": as the process was started; off
	// CPUs are the processors on which all threads run, such as 2-5,8; "": those that the process may use. It is the process that is
	// bound, not each loop to a processor of its own: a loop on a locked thread would hand its processor over, and be woken through the
	// kernel, at each wait, and runtime coroutines that meet another thread's lock are fatal.
	CPUs  string
	CPUAt Pos // where they are written
	// BusyPolling is how long a loop looks for events before it parks, where those before have come so soon, 1us..100ms; 0: it does not.
	BusyPolling time.Duration
}

func defaultTuning() Tuning {
	return Tuning{MemoryPercent: 80, GCAuto: true, RaiseFiles: true, ShedPercent: 90, CoreDumps: "off"}
}

const (
	tuningKeys     = "memory_limit gc_percent raise_file_limit shed_above cpus core_dumps busy_polling"
	minMemoryBytes = 32 << 20
	maxCPUs        = 1024 // as many as an affinity mask of the usual size has
	maxCPUsText    = 4096 // longer than a list of every second one
)

// tuning reads auto, off, or a map.
func (d *decoder) tuning(key string, n ast.Node) {
	to := &d.cfg.Tuning
	n = d.resolve(n)
	if _, short := n.(*ast.StringNode); short {
		var word string
		if d.word(key, n, "auto off", &word); word == "off" {
			*to = Tuning{}
		}
		return
	}
	d.mapping(key, n, tuningKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "memory_limit":
			d.memoryLimit(key, v, to)
		case "gc_percent":
			if to.GCAuto = d.is(v, "auto"); !to.GCAuto {
				d.integer(key, v, 10, 1000, &to.GCPercent)
			}
		case "raise_file_limit":
			d.boolean(key, v, &to.RaiseFiles)
		case "shed_above":
			if d.is(v, "off") {
				to.ShedPercent = 0
			} else {
				d.percent(key, v, 50, 100, &to.ShedPercent)
			}
		case "core_dumps":
			d.word(key, v, "off on", &to.CoreDumps)
		case "cpus":
			d.cpus(key, v, to)
		case "busy_polling":
			if !d.is(v, "off") {
				d.durationUpTo(key, v, time.Microsecond, 100*time.Millisecond, &to.BusyPolling)
			}
		default:
			return false
		}
		return true
	})
}

// cpus reads a list of processors.
func (d *decoder) cpus(key string, n ast.Node, t *Tuning) {
	var text string
	if !d.text(key, n, &text) {
		return
	}
	list, ok := parseCPUs(text)
	if !ok {
		d.problem(n, "such as \"2-5,8\", or \"0-15:1/2\" for the first of every two", "%q must be a list of processors from 0 to %d, not %q", key, maxCPUs-1, clip(text))
		return
	}
	t.CPUs, t.CPUAt = list, d.at(n)
}

// parseCPUs reads a list of processors as the kernel's command line has it (kernel: admin-guide/kernel-parameters, cpu lists): numbers,
// ranges, and ranges of which only the first so many of each group count, 0-15:1/2. It gives the shortest list without such groups.
func parseCPUs(text string) (list string, ok bool) {
	if len(text) > maxCPUsText {
		return "", false
	}
	var has [maxCPUs + 1]bool // the last ends every range
	for part := range strings.SplitSeq(text, ",") {
		span, groups, grouped := strings.Cut(strings.TrimSpace(part), ":")
		low, high, ranged := strings.Cut(span, "-")
		first, ok1 := parseCPU(low)
		last, ok2 := first, true
		used, group, ok3 := 1, 1, true
		if ranged {
			last, ok2 = parseCPU(high)
		}
		if grouped {
			a, b, _ := strings.Cut(groups, "/")
			var okA, okB bool
			used, okA = parseCPU(a)
			group, okB = parseCPU(b)
			ok3 = ranged && okA && okB && 0 < used && used <= group
		}
		if !ok1 || !ok2 || !ok3 || first > last {
			return "", false
		}
		for cpu := first; cpu <= last; cpu++ {
			has[cpu] = has[cpu] || (cpu-first)%group < used
		}
	}
	var parts []string
	for cpu := 0; cpu < maxCPUs; cpu++ {
		if first := cpu; has[cpu] {
			for has[cpu+1] {
				cpu++
			}
			part := strconv.Itoa(first)
			if cpu > first {
				part += "-" + strconv.Itoa(cpu)
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ","), true
}

func parseCPU(text string) (n int, ok bool) {
	if text == "" || len(text) > 4 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n < maxCPUs
}

// is says whether a value is this word.
func (d *decoder) is(n ast.Node, word string) bool {
	s, ok := d.resolve(n).(*ast.StringNode)
	return ok && s.Value == word
}

// memoryLimit reads off, a share or a size.
func (d *decoder) memoryLimit(key string, n ast.Node, t *Tuning) {
	s, ok := d.resolve(n).(*ast.StringNode)
	switch {
	case ok && s.Value == "off":
		t.MemoryPercent = 0
	case ok && len(s.Value) > 0 && s.Value[len(s.Value)-1] == '%':
		d.percent(key, n, 10, 100, &t.MemoryPercent)
	default:
		if d.size(key, n, minMemoryBytes, maxBodyBytes, &t.MemoryBytes); t.MemoryBytes > 0 {
			t.MemoryPercent = 0
		}
	}
}

func (w *dumper) tuning(t *Tuning) {
	rest := *t
	if rest.CPUAt = (Pos{}); rest == (Tuning{}) {
		w.line("tuning: off")
		return
	}
	memory, collect, shed := "off", "auto", "off"
	switch {
	case t.MemoryBytes > 0:
		memory = formatSize(t.MemoryBytes)
	case t.MemoryPercent > 0:
		memory = formatShare(t.MemoryPercent) + "%"
	}
	if t.GCPercent > 0 {
		collect = fmt.Sprint(t.GCPercent)
	}
	if t.ShedPercent > 0 {
		shed = formatShare(t.ShedPercent) + "%"
	}
	more := ""
	if t.CPUs != "" {
		more = fmt.Sprintf(", cpus: %q", t.CPUs)
	}
	if t.CoreDumps != "" {
		more += ", core_dumps: " + t.CoreDumps
	}
	if t.BusyPolling > 0 {
		more += ", busy_polling: " + formatDuration(t.BusyPolling)
	}
	w.line("tuning: { memory_limit: %s, gc_percent: %s, raise_file_limit: %t, shed_above: %s%s }", memory, collect, t.RaiseFiles, shed, more)
}

// wholeDuration reads a duration of whole units, because the kernel takes no parts of one.
func (d *decoder) wholeDuration(key string, n ast.Node, unit, high time.Duration, to *time.Duration) {
	v := *to
	d.durationUpTo(key, n, unit, high, &v)
	if v%unit != 0 {
		d.problem(n, "", "%q must be a multiple of %s", key, formatDuration(unit))
		return
	}
	*to = v
}
