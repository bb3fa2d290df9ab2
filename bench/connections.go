package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	childConnections = "connections" // the hidden subcommand of holdConnections

	openersAtOnce    = 32
	memorySettleTime = time.Second
)

// holdConnections opens keep-alive connections and keeps them, in a process of its own because both ends of each count
// against a limit of open files. It prints "ready N" when N requests were sent (and answered, unless -unanswered), waits
// for a line or the end of input, lets every connection do one more step, and prints "alive N".
func holdConnections(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet(childConnections, flag.ContinueOnError)
	address := flags.String("address", "", "proxy")
	path := flags.String("path", "/", "request target")
	count := flags.Int("count", 0, "connections")
	bodyBytes := flags.Int("body", 0, "bytes of the body of every answer")
	unanswered := flags.Bool("unanswered", false, "do not wait for the first answer")
	encrypted := flags.Bool("tls", false, "speak TLS")
	h2 := flags.Bool("h2", false, "speak HTTP/2")
	certificate := flags.String("certificate", "", "file of the proxy's certificate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	shared := target{address: *address, path: *path, bodyBytes: *bodyBytes, wire: wire{tls: *encrypted, h2: *h2}}
	if *encrypted {
		var err error
		if shared.leaf, err = readLeaf(*certificate); err != nil {
			return err
		}
	}
	holders := make([]connection, *count)
	for i := range holders {
		holders[i].target = shared
	}
	defer func() {
		for i := range holders {
			holders[i].abort()
		}
	}()
	ready := countEach(holders, func(c *connection) error {
		if err := c.open(ctx); err != nil {
			return err
		}
		if err := c.send(); err != nil || *unanswered {
			return err
		}
		return c.receive()
	})
	if _, err := fmt.Fprintf(stdout, "ready %s\n", ready); err != nil {
		return err
	}
	if _, err := bufio.NewReader(stdin).ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	alive := countEach(holders, func(c *connection) error {
		if !*unanswered {
			if err := c.send(); err != nil {
				return err
			}
		}
		return c.receive()
	})
	_, err := fmt.Fprintf(stdout, "alive %s\n", alive)
	return err
}

// countEach does a step on every connection, a few at once, and tells how many went well and why the first one did not.
func countEach(connections []connection, step func(*connection) error) string {
	var (
		mu    sync.Mutex
		good  int
		first error
		wait  sync.WaitGroup
	)
	queue := make(chan *connection)
	for range openersAtOnce {
		wait.Go(func() {
			for c := range queue {
				err := step(c)
				mu.Lock()
				if err == nil {
					good++
				} else if first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	for i := range connections {
		queue <- &connections[i]
	}
	close(queue)
	wait.Wait()
	if first != nil {
		return fmt.Sprintf("%d %s", good, strings.Join(strings.Fields(first.Error()), " "))
	}
	return strconv.Itoa(good)
}

// measureMemory fills the sample of a memory scenario from the proxy that runs as p at address.
func (r *rig) measureMemory(ctx context.Context, s scenario, p *process, address string, result *sample) (err error) {
	before, err := systemProc.residentKiB(p.pid())
	if err != nil {
		return err
	}
	self, err := self()
	if err != nil {
		return err
	}
	args := []string{childConnections, "-address", address, "-path", s.path, "-count", strconv.Itoa(s.connections),
		"-body", strconv.Itoa(s.reply.bodyBytes), "-certificate", r.identity.certificate}
	if s.wire.tls {
		args = append(args, "-tls")
	}
	if s.wire.h2 {
		args = append(args, "-h2")
	}
	if s.kind == memoryPerInProgress {
		args = append(args, "-unanswered")
	}
	stdinRead, stdin := io.Pipe()
	stdoutRead, stdout := io.Pipe()
	child, err := r.launcher.start(program{
		name: childConnections, path: self, args: args, cpus: r.cpus.load,
		stdin: stdinRead, stdout: stdout, output: filepath.Join(r.dir, "connections.log"),
	})
	if err != nil {
		return err
	}
	// Whatever ends first, the child, the bench or the time, nobody stays behind on a pipe.
	ctx, cancel := context.WithTimeoutCause(ctx, 2*holdLimit, errors.New("waited too long"))
	unblock := context.AfterFunc(ctx, func() { stdoutRead.CloseWithError(context.Cause(ctx)) })
	go func() {
		<-child.ended
		stdout.CloseWithError(io.ErrUnexpectedEOF)
	}()
	defer func() {
		unblock()
		cancel()
		stdin.Close()      //nolint:errcheck // a pipe in memory
		stdoutRead.Close() //nolint:errcheck // a pipe in memory
		r.launcher.stop(child)
	}()
	lines := bufio.NewReader(stdoutRead)
	if err := expectLine(lines, "ready", s.connections); err != nil {
		return err
	}
	if s.kind == memoryPerInProgress {
		if err := r.awaitHeld(ctx, s.connections); err != nil {
			return err
		}
	}
	if err := pause(ctx, memorySettleTime); err != nil {
		return err
	}
	after, err := systemProc.residentKiB(p.pid())
	if err != nil {
		return err
	}
	result.value = float64(after-before) / float64(s.connections)
	result.residentKiB = after
	if s.kind == memoryPerInProgress {
		if _, err := r.askUpstream(ctx, pathRelease); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(stdin, "go on\n"); err != nil {
		return fmt.Errorf("cannot go on with the connections: %w", err)
	}
	// A proxy that has dropped its connections has saved their memory at the client's cost.
	return expectLine(lines, "alive", s.connections)
}

// expectLine reads "WORD COUNT[ REASON]" and accepts only the full count.
func expectLine(lines *bufio.Reader, word string, count int) error {
	line, err := lines.ReadString('\n')
	if err != nil {
		return fmt.Errorf("cannot read from the connections' process: %w", err)
	}
	line = strings.TrimSpace(line)
	if line != word+" "+strconv.Itoa(count) {
		return fmt.Errorf("want %d connections %s, got %q", count, word, line)
	}
	return nil
}
