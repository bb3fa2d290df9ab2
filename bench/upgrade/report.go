package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// result is what one peer came to.
type result struct {
	peer      string
	upgrades  int
	reloads   int
	upgrading time.Duration // all upgrades, from the wish to the end of the old process
	reloading time.Duration // all reloads, from the wish to what is new
	kinds     []kind
	looks     []look // before the first upgrade, and after the reloads that follow each
}

// look is what a peer holds, with all its processes.
type look struct {
	rss int // KiB
	fds int
}

// look adds one, once what was before has ended.
func (r *result) look(ctx context.Context, p *peer) error {
	if err := until(ctx, p.drain+readyTime, p.settled); err != nil {
		return fmt.Errorf("processes stay: %w", err)
	}
	rss, fds, err := p.resources()
	if err == nil {
		r.looks = append(r.looks, look{rss, fds})
	}
	return err
}

// course tells of all looks: before, after the first upgrade, after the last, and the most.
func (r *result) course(of func(l look) float64, format string) string {
	first, last, most := r.looks[min(1, len(r.looks)-1)], r.looks[len(r.looks)-1], 0.0
	for _, l := range r.looks {
		most = max(most, of(l))
	}
	return fmt.Sprintf(strings.ReplaceAll("# / # / # / #", "#", format), of(r.looks[0]), of(first), of(last), most)
}

// report writes a table, and one example of each kind of failure.
func report(w io.Writer, all []result) error {
	var b strings.Builder
	b.WriteString("| peer | upgrades | each, ms | reloads | each, ms |")
	for _, k := range all[0].kinds {
		fmt.Fprintf(&b, " %s: failed of |", k.name)
	}
	b.WriteString(" RSS, MiB: before / first / last / most | descriptors: likewise |\n" + strings.Repeat("|---", len(all[0].kinds)+7) + "|\n")
	for i := range all {
		r := &all[i]
		fmt.Fprintf(&b, "| %s | %d | %s | %d | %s |", r.peer, r.upgrades, each(r.upgrading, r.upgrades), r.reloads, each(r.reloading, r.reloads))
		for _, k := range r.kinds {
			made, failed, _ := k.counts()
			fmt.Fprintf(&b, " %d of %d |", failed, made+failed)
		}
		fmt.Fprintf(&b, " %s | %s |\n", r.course(func(l look) float64 { return float64(l.rss) / 1024 }, "%.1f"),
			r.course(func(l look) float64 { return float64(l.fds) }, "%.0f"))
	}
	for _, r := range all {
		for _, k := range r.kinds {
			if _, _, example := k.counts(); example != nil {
				fmt.Fprintf(&b, "\n%s, %s, for example: %v\n", r.peer, k.name, example)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// each is the mean of n in milliseconds.
func each(all time.Duration, n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint((all / time.Duration(n)).Milliseconds())
}
