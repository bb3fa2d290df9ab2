package tuning

import (
	"cmp"
	"fmt"
	"io"
	"slices"
)

// Examine looks at every item.
func (h *Host) Examine() *Report {
	r := &Report{Kernel: h.kernel(), CPUs: len(h.cpus()), CPUQuota: h.CPUQuota()}
	r.MemoryBytes, r.MemoryFrom = h.Memory()
	for _, table := range [][]entry{sysctls[:], hardware[:]} {
		for i := range table {
			e := &table[i]
			v := e.judge(h, e.id)
			f := Finding{ID: e.id, State: v.state, Severity: e.severity, Current: v.current, Wanted: v.wanted, Why: e.why}
			if v.state == Bad {
				f.Set = v.set
			}
			r.Items = append(r.Items, f)
		}
	}
	slices.SortStableFunc(r.Items, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(urgency(&a), urgency(&b)), cmp.Compare(place(a.State), place(b.State)))
	})
	return r
}

// urgency orders what is bad by severity, before everything else.
func urgency(f *Finding) int {
	if f.State != Bad {
		return 1
	}
	return -int(f.Severity)
}

func place(s State) int { return slices.Index([]State{Bad, Unknown, Good, Absent}, s) }

// WriteTo writes the report for people: what is bad with the reason, the rest a line each.
func (r *Report) WriteTo(w io.Writer) (n int64, err error) {
	p := printer{w: w}
	p.line("host: kernel %s, %d processors%s, %s of memory (%s)", orDash(r.Kernel), r.CPUs, quotaText(r.CPUQuota), sizeText(r.MemoryBytes), orDash(r.MemoryFrom))
	state := Absent + 1
	for i := range r.Items {
		f := &r.Items[i]
		if f.State != state {
			state = f.State
			p.line("\n%s:", [...]string{"as wanted", "not as wanted", "not told by this host", "not there, so nothing is wanted"}[state])
		}
		if f.State != Bad {
			p.line("  %-34s %s", f.ID, orDash(f.Current))
			continue
		}
		p.line("  %-6s  %-34s  %s", f.Severity, f.ID, f.Current)
		p.line("          wanted: %s", f.Wanted)
		p.line("          why: %s", f.Why)
	}
	return p.n, p.err
}

func quotaText(quota float64) string {
	if quota == 0 {
		return ""
	}
	return fmt.Sprintf(" with the time of %.4g", quota)
}

// sizeText writes bytes with one decimal.
func sizeText(n uint64) string {
	switch {
	case n == 0:
		return "an unknown amount"
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printer counts what it writes and keeps the first error.
type printer struct {
	w   io.Writer
	n   int64
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err != nil {
		return
	}
	n, err := fmt.Fprintf(p.w, format+"\n", args...)
	p.n += int64(n)
	p.err = err
}
