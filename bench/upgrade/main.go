// Package main replaces gateways under load, again and again, and counts what their clients notice: Sluice by its own upgrade,
// nginx by the signals of its manual (USR2, WINCH, QUIT), HAProxy by a reload of its master (USR2), which starts its binary anew.
//
// No client repeats a request or looks away: what breaks off, is refused, or comes as something else is a failure. A kept
// connection that says that it ends is opened anew, which is none.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	sluice   string
	peers    string
	upgrades int
	pause    time.Duration
	drain    time.Duration
}

const (
	exitFailed = 1
	exitUsage  = 2
	mostTimes  = 1000
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }

func realMain(args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("upgrade", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.sluice, "sluice", "bin/sluice", "the sluice binary")
	flags.StringVar(&o.peers, "peers", "sluice,nginx,haproxy", "comma-separated peers")
	flags.IntVar(&o.upgrades, "n", 20, "upgrades of each peer")
	flags.DurationVar(&o.pause, "pause", 500*time.Millisecond, "between the end of one and the next")
	flags.DurationVar(&o.drain, "drain", 5*time.Second, "how long an old process may finish what it has begun")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 || o.upgrades < 1 || o.upgrades > mostTimes || o.pause < 0 || o.drain < time.Second {
		fmt.Fprintf(stderr, "upgrade: -n must be 1 to %d, -drain a second at least, and nothing else be said\n", mostTimes)
		return exitUsage
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "upgrade: %v\n", err)
		return exitFailed
	}
	return 0
}

func run(ctx context.Context, o options, stdout, stderr io.Writer) error {
	folder, err := os.MkdirTemp("", "sluice-upgrade-")
	if err != nil {
		return fmt.Errorf("cannot make a working folder: %w", err)
	}
	defer os.RemoveAll(folder) //nolint:errcheck // nothing of it is needed
	if err := os.Chmod(folder, 0o755); err != nil {
		return fmt.Errorf("cannot open the working folder to nginx's workers: %w", err)
	}
	upstream, err := startUpstream()
	if err != nil {
		return err
	}
	defer upstream.close()
	identity, err := makeIdentity(folder)
	if err != nil {
		return err
	}
	var all []result
	for name := range strings.SplitSeq(o.peers, ",") {
		p, err := newPeer(name, o, folder, upstream.addr, identity)
		if err != nil {
			return err
		}
		fmt.Fprintf(stderr, "%s: %d upgrades\n", name, o.upgrades)
		r, err := measure(ctx, p, o, identity)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", name, err)
		}
		all = append(all, r)
	}
	return report(stdout, all)
}

// result is what one peer came to.
type result struct {
	peer     string
	upgrades int
	took     time.Duration // of all upgrades, from the wish to the end of the old process
	clients  []*client
	rss      [2]int // KiB of the whole tree, after the first upgrade and after the last
	fds      [2]int // likewise
}

// measure puts every kind of client on a peer and replaces it under them.
func measure(ctx context.Context, p *peer, o options, identity *identity) (r result, err error) {
	if err := p.start(ctx); err != nil {
		return r, err
	}
	defer func() {
		if stopped := p.stop(); err == nil {
			err = stopped
		}
	}()
	r = result{peer: p.name, upgrades: o.upgrades, clients: allClients(p, identity)}
	stop := startClients(r.clients)
	defer stop()
	if err := pause(ctx, o.pause); err != nil {
		return r, err
	}
	for i := range o.upgrades {
		began := time.Now()
		if err := p.upgrade(ctx); err != nil {
			return r, fmt.Errorf("upgrade %d: %w", i+1, err)
		}
		r.took += time.Since(began)
		if err := pause(ctx, o.pause); err != nil {
			return r, err
		}
		if i == 0 || i == o.upgrades-1 {
			at := min(i, 1)
			if r.rss[at], r.fds[at], err = p.resources(); err != nil {
				return r, err
			}
		}
	}
	if o.upgrades == 1 {
		r.rss[1], r.fds[1] = r.rss[0], r.fds[0]
	}
	return r, nil
}

// report writes a table, and one example of each kind of failure.
func report(w io.Writer, all []result) error {
	var b strings.Builder
	b.WriteString("| peer | upgrades | each, ms |")
	for _, c := range all[0].clients {
		fmt.Fprintf(&b, " %s: failed of |", c.name)
	}
	b.WriteString(" RSS, MiB | descriptors |\n|---|---|---|" + strings.Repeat("---|", len(all[0].clients)+2) + "\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d | %d |", r.peer, r.upgrades, (r.took / time.Duration(r.upgrades)).Milliseconds())
		for _, c := range r.clients {
			fmt.Fprintf(&b, " %d of %d |", c.failed, c.made+c.failed)
		}
		fmt.Fprintf(&b, " %.1f → %.1f | %d → %d |\n", float64(r.rss[0])/1024, float64(r.rss[1])/1024, r.fds[0], r.fds[1])
	}
	for _, r := range all {
		for _, c := range r.clients {
			if c.failed > 0 {
				fmt.Fprintf(&b, "\n%s, %s, for example: %v\n", r.peer, c.name, c.example)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
