package config

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Fault makes requests fail on purpose, or late, to see what comes of it. At least one of Delay and Abort is above 0.
type Fault struct {
	DelayPercent float64       // of the requests, 0.001..100; 0: none
	Delay        time.Duration // 1ms..1h
	AtOnce       int           // requests that are delayed at the same time, of more the others are not; 1..100000; 1000

	AbortPercent float64 // of the requests that go on after Delay, 0.001..100; 0: none
	Status       int     // 400..599; 0: one of the others
	GRPCStatus   int     // 1..16; of what is no gRPC call, the status that stands for it; 0: one of the others
	Reset        bool    // the connection or stream is reset, without an answer

	Header string // of the requests that are concerned, whatever its value; "": all are
}

// fault reads a policy.
func (d *decoder) fault(key string, n ast.Node) *Fault {
	f := &Fault{AtOnce: 1000}
	given := map[string]bool{}
	ok := d.mapping(key, n, "delay abort when at_once", func(key string, k, v ast.Node) bool {
		given[key] = true
		switch key {
		case "delay":
			d.faultDelay(key, v, f)
		case "abort":
			d.faultAbort(key, v, f)
		case "when":
			d.faultWhen(key, v, f)
		case "at_once":
			d.integer(key, v, 1, 100_000, &f.AtOnce)
		default:
			return false
		}
		return true
	})
	switch {
	case !ok:
	case !given["delay"] && !given["abort"]:
		d.problem(n, "write { abort: { status: 503, percent: 1% } }", "%q has neither %q nor %q", key, "delay", "abort")
	case given["at_once"] && !given["delay"]:
		d.problem(n, "", "%q has no meaning without %q", "at_once", "delay")
	}
	return f
}

// faultDelay reads a duration, or a map.
func (d *decoder) faultDelay(key string, n ast.Node, f *Fault) {
	f.DelayPercent = 100
	switch n = d.resolve(n); {
	case n == nil:
		return
	case !isMap(n):
		d.durationUpTo(key, n, time.Millisecond, time.Hour, &f.Delay)
		return
	}
	given := false
	ok := d.mapping(key, n, "duration percent", func(key string, _, v ast.Node) bool {
		switch key {
		case "duration":
			given = true
			d.durationUpTo(key, v, time.Millisecond, time.Hour, &f.Delay)
		case "percent":
			d.percent(key, v, 0.001, 100, &f.DelayPercent)
		default:
			return false
		}
		return true
	})
	if ok && !given {
		d.problem(n, "", "%q has no %q", key, "duration")
	}
}

func (d *decoder) faultAbort(key string, n ast.Node, f *Fault) {
	f.AbortPercent = 100
	first := ""
	ok := d.mapping(key, n, "status grpc_status reset percent", func(key string, k, v ast.Node) bool {
		if key == "status" || key == "grpc_status" || key == "reset" {
			if first != "" {
				d.problem(k, "", "a request is aborted in one way, and %q is another beside %q", key, first)
				return true
			}
			first = key
		}
		switch key {
		case "status":
			d.integer(key, v, 400, 599, &f.Status)
		case "grpc_status":
			d.integer(key, v, 1, 16, &f.GRPCStatus)
		case "reset":
			if d.boolean(key, v, &f.Reset); !f.Reset {
				d.problem(v, "write reset: true", "%q must be true", key)
			}
		case "percent":
			d.percent(key, v, 0.001, 100, &f.AbortPercent)
		default:
			return false
		}
		return true
	})
	if ok && first == "" {
		d.problem(n, "write { status: 503, percent: 1% }", "%q needs one of %q, %q and %q", key, "status", "grpc_status", "reset")
	}
}

func (d *decoder) faultWhen(key string, n ast.Node, f *Fault) {
	given := false
	ok := d.mapping(key, n, "header", func(key string, _, v ast.Node) bool {
		if key != "header" {
			return false
		}
		given = true
		var name string
		if d.text(key, v, &name) && d.token(key, v, name) {
			f.Header = name
		}
		return true
	})
	if ok && !given {
		d.problem(n, "write { header: NAME }", "%q says nothing", key)
	}
}

func (w *dumper) fault(f *Fault) {
	w.block("fault:", func() {
		if f.DelayPercent > 0 {
			w.line("delay: { duration: %s, percent: %s%% }", formatDuration(f.Delay), formatShare(f.DelayPercent))
			w.line("at_once: %d", f.AtOnce)
		}
		if f.AbortPercent > 0 {
			percent := formatShare(f.AbortPercent)
			switch {
			case f.Status > 0:
				w.line("abort: { status: %d, percent: %s%% }", f.Status, percent)
			case f.GRPCStatus > 0:
				w.line("abort: { grpc_status: %d, percent: %s%% }", f.GRPCStatus, percent)
			default:
				w.line("abort: { reset: true, percent: %s%% }", percent)
			}
		}
		if f.Header != "" {
			w.line("when: { header: %s }", quote(f.Header))
		}
	})
}
