package config

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Tuning is how the process is fitted to its host. The file says auto, off (zero), or a map of what differs from auto.
type Tuning struct {
	MemoryPercent float64 // of the cgroup's or host's memory, that the runtime keeps to, 10..100; 80; 0: see MemoryBytes
	MemoryBytes   int64   // that it keeps to, 32MiB or more; 0: see MemoryPercent; with both 0 it keeps to nothing
	GCPercent     int     // growth of the heap between collections, 10..1000; 0: the runtime's own
	RaiseFiles    bool    // the limit of descriptors is raised as far as it may be; true
	ShedPercent   float64 // of the memory, from which on no connections are taken, 50..100; 90; 0: never
	CoreDumps     string  // off: the memory, which has secrets in it, is not written to a file in a crash; on: it may be; "": as the process was started; off
}

func defaultTuning() Tuning {
	return Tuning{MemoryPercent: 80, RaiseFiles: true, ShedPercent: 90, CoreDumps: "off"}
}

const (
	tuningKeys     = "memory_limit gc_percent raise_file_limit shed_above core_dumps"
	minMemoryBytes = 32 << 20
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
			if !d.is(v, "auto") {
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
		default:
			return false
		}
		return true
	})
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
	if *t == (Tuning{}) {
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
	cores := ""
	if t.CoreDumps != "" {
		cores = ", core_dumps: " + t.CoreDumps
	}
	w.line("tuning: { memory_limit: %s, gc_percent: %s, raise_file_limit: %t, shed_above: %s%s }", memory, collect, t.RaiseFiles, shed, cores)
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
