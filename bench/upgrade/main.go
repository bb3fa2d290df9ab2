// Package main replaces gateways under load, again and again, and has them read their configuration anew in between, and counts what their
// clients notice: Sluice by its own upgrade and reload, nginx by the signals of its manual (USR2, WINCH, QUIT; HUP), HAProxy by a reload of
// its master (USR2), which starts its binary anew and so is both. A reload is over when what is new serves, an upgrade when what was before
// has ended.
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
	reloads  int
	clients  int
	think    time.Duration
	pause    time.Duration
	drain    time.Duration
}

// reloadsAfter is how many of the reloads follow upgrade i, counted from 0.
func (o *options) reloadsAfter(i int) int { return o.reloads*(i+1)/o.upgrades - o.reloads*i/o.upgrades }

const (
	exitFailed = 1
	exitUsage  = 2
	mostTimes  = 1000
	// mostReloads and mostClients bound a run, and what clients of new connections leave behind in the kernel.
	mostReloads = 10_000
	mostClients = 256
)

func main() { os.Exit(realMain(os.Args[1:], os.Stdout, os.Stderr)) }

func realMain(args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("upgrade", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.sluice, "sluice", "bin/sluice", "the sluice binary")
	flags.StringVar(&o.peers, "peers", "sluice,nginx,haproxy", "comma-separated peers")
	flags.IntVar(&o.upgrades, "n", 20, "upgrades of each peer")
	flags.IntVar(&o.reloads, "reloads", 200, "reloads of each peer in all, spread between the upgrades")
	flags.IntVar(&o.clients, "clients", 8, "clients of each kind")
	flags.DurationVar(&o.think, "think", 5*time.Millisecond, "of a client between two exchanges, so that clients leave the machine to what is measured")
	flags.DurationVar(&o.pause, "pause", 200*time.Millisecond, "between the last reload and the next upgrade")
	flags.DurationVar(&o.drain, "drain", 5*time.Second, "how long an old process may finish what it has begun")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 || o.upgrades < 1 || o.upgrades > mostTimes || o.reloads < 0 || o.reloads > mostReloads || o.clients < 1 || o.clients > mostClients ||
		o.pause < 0 || o.think < 0 || o.drain < time.Second {
		fmt.Fprintf(stderr, "upgrade: -n must be 1 to %d, -reloads 0 to %d, -clients 1 to %d, -drain a second at least, and nothing else be said\n",
			mostTimes, mostReloads, mostClients)
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
		fmt.Fprintf(stderr, "%s: %d upgrades, %d reloads\n", name, o.upgrades, o.reloads)
		r, err := measure(ctx, p, o, identity)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", name, err)
		}
		all = append(all, r)
	}
	return report(stdout, all)
}

// measure puts every kind of client on a peer, and replaces it under them.
func measure(ctx context.Context, p *peer, o options, identity *identity) (r result, err error) {
	if err := p.start(ctx); err != nil {
		return r, err
	}
	defer func() {
		if stopped := p.stop(); err == nil {
			err = stopped
		}
	}()
	r = result{peer: p.name, upgrades: o.upgrades, reloads: o.reloads, kinds: allKinds(p, identity, o.clients)}
	stop := startClients(r.kinds, o.think)
	defer stop()
	look := func() error {
		if err := pause(ctx, o.pause); err != nil {
			return err
		}
		return r.look(ctx, p)
	}
	if err := look(); err != nil {
		return r, err
	}
	for i := range o.upgrades {
		began := time.Now()
		if err := p.swap(ctx, p); err != nil {
			return r, fmt.Errorf("upgrade %d: %w", i+1, err)
		}
		r.upgrading += time.Since(began)
		for n := range o.reloadsAfter(i) {
			began = time.Now()
			if err := p.reload(ctx, p); err != nil {
				return r, fmt.Errorf("reload %d after upgrade %d: %w", n+1, i+1, err)
			}
			r.reloading += time.Since(began)
		}
		if err := look(); err != nil {
			return r, err
		}
	}
	return r, nil
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
