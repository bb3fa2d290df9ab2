package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// upstream is a fake upstream on a real socket of the test process. It behaves as its mode says, remembers what it was
// sent and counts.
type upstream struct {
	name    string
	address string // as endpoints are written: host:port or unix:/path
	mode    upstreamMode
	answer  []segment // of the modes that take a FILE
	status  int       // of mode status

	ln   net.Listener // nil in mode refuse
	quit chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	counts   map[string]int
	seen     bytes.Buffer // every request as dump shows it
	open     map[net.Conn]struct{}
	held     chan struct{} // closed by release; nil unless -hold
	stopping bool
}

// upstreamCounters are the names that upstream-count knows.
const (
	countConnections = "connections" // accepted
	countOpen        = "open"        // now
	countConcurrent  = "concurrent"  // most open at once
	countClosed      = "closed"      // closed or reset by the peer
	countRequests    = "requests"    // heads read
	countBodyBytes   = "body-bytes"  // request body bytes read, chunk framing left out
)

// cmdUpstream: upstream [-hold] [-listen ADDRESS] NAME MODE [FILE|STATUS] starts a fake upstream and sets $NAME to its
// address, $NAME_PORT to its port. With -hold it answers only after `release NAME`. A NAME that was stopped starts again on its old address.
func cmdUpstream(c *call) error {
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	hold := flags.Bool("hold", false, "")
	listen := flags.String("listen", "127.0.0.1:0", "")
	if err := parseFlags(flags, c.args); err != nil || flags.NArg() < 2 {
		return usageError("upstream [-hold] [-listen ADDRESS] NAME MODE [FILE|STATUS]")
	}
	name, modeName, args := flags.Arg(0), flags.Arg(1), flags.Args()[2:]
	mode, ok := upstreamModes()[modeName]
	if !ok || len(args) > 1 || (mode.takes == takesNothing && len(args) > 0) || (mode.takes != takesNothing && len(args) == 0) {
		return usageError(fmt.Sprintf("upstream %s: unknown mode %q, or wrong arguments %q", name, modeName, args))
	}
	u := &upstream{name: name, mode: mode, quit: make(chan struct{}), counts: map[string]int{}, open: map[net.Conn]struct{}{}}
	if *hold {
		u.held = make(chan struct{})
	}
	if old := c.upstreams[name]; old != nil {
		old.stop()
		*listen = old.address
	}
	var err error
	switch mode.takes {
	case takesFile:
		u.answer, err = c.readHTTPFile(args[0])
	case takesStatus:
		u.status, err = strconv.Atoi(args[0])
	}
	if err != nil {
		return err
	}
	if err := u.start(*listen, c.ports); err != nil {
		return fmt.Errorf("cannot start upstream %q: %w", name, err)
	}
	c.upstreams[name] = u
	c.ts.Setenv(name, u.address)
	if _, port, err := net.SplitHostPort(u.address); err == nil {
		c.ts.Setenv(name+"_PORT", port)
	}
	return nil
}

func (u *upstream) start(listen string, ports *portRange) error {
	if u.mode.serve == nil && !u.mode.full {
		port, err := ports.take()
		u.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		return err
	}
	network, addr := splitAddress(listen)
	ln, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	u.ln, u.address = ln, ln.Addr().String()
	if network == "unix" {
		u.address = "unix:" + addr
	}
	if u.mode.full {
		return u.fill()
	}
	u.wg.Go(u.accept)
	return nil
}

// fill makes the kernel drop every further attempt to connect: its queue holds one connection, and nobody takes it.
func (u *upstream) fill() error {
	raw, err := u.ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	if failed := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); failed != nil || err != nil {
		return errors.Join(failed, err)
	}
	for {
		conn, err := net.DialTimeout("tcp", u.address, 50*time.Millisecond)
		if err != nil {
			return nil
		}
		u.mu.Lock()
		u.open[conn] = struct{}{}
		full := len(u.open) > 16
		u.mu.Unlock()
		if full {
			return errors.New("the kernel's queue does not get full")
		}
	}
}

// splitAddress turns an address as configuration has it into what net.Dial and net.Listen want.
func splitAddress(address string) (network, addr string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", address
}

func (u *upstream) accept() {
	for {
		conn, err := u.ln.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		if u.stopping {
			u.mu.Unlock()
			_ = conn.Close()
			return
		}
		u.open[conn] = struct{}{}
		u.counts[countConnections]++
		u.counts[countOpen] = len(u.open)
		u.counts[countConcurrent] = max(u.counts[countConcurrent], len(u.open))
		u.mu.Unlock()
		u.wg.Go(func() {
			c := &upstreamConn{Conn: conn, u: u, br: bufio.NewReader(conn)}
			if err := u.mode.serve(c); isPeerGone(err) {
				u.count(countClosed, 1)
			}
			_ = conn.Close()
			u.mu.Lock()
			delete(u.open, conn)
			u.counts[countOpen] = len(u.open)
			u.mu.Unlock()
		})
	}
}

// isPeerGone tells the peer's end of a connection from our own.
func isPeerGone(err error) bool {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return false
	}
	var bad malformed
	return err != nil && !errors.Is(err, net.ErrClosed) && !errors.As(err, &bad)
}

// stop closes the listener and all connections and waits for their goroutines.
func (u *upstream) stop() {
	u.mu.Lock()
	if u.stopping || u.ln == nil {
		u.mu.Unlock()
		return
	}
	u.stopping = true
	close(u.quit)
	_ = u.ln.Close()
	for conn := range u.open {
		_ = conn.Close()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

func (u *upstream) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held != nil {
		close(u.held)
		u.held = nil
	}
}

// waitReleased returns at once unless the upstream was started with -hold.
func (u *upstream) waitReleased() {
	u.mu.Lock()
	held := u.held
	u.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-u.quit:
	}
}

func (u *upstream) count(name string, n int) {
	u.mu.Lock()
	u.counts[name] += n
	u.mu.Unlock()
}

func (c *call) upstream(usage string) (*upstream, error) {
	if len(c.args) == 0 {
		return nil, usageError(usage)
	}
	u := c.upstreams[c.args[0]]
	if u == nil {
		return nil, usageError(fmt.Sprintf("there is no upstream %q", c.args[0]))
	}
	return u, nil
}

// cmdUpstreamStop: upstream-stop NAME closes the upstream's listener and connections: from now on it refuses.
func cmdUpstreamStop(c *call) error {
	u, err := c.upstream("upstream-stop NAME")
	if err != nil {
		return err
	}
	u.stop()
	return nil
}

// cmdRelease: release NAME lets an upstream that was started with -hold answer.
func cmdRelease(c *call) error {
	u, err := c.upstream("release NAME")
	if err != nil {
		return err
	}
	u.release()
	return nil
}

// cmdUpstreamCount: upstream-count NAME COUNTER N, or COUNTER<=N, COUNTER>=N, waits until all hold.
func cmdUpstreamCount(c *call) error {
	u, err := c.upstream("upstream-count NAME COUNTER N...")
	if err != nil {
		return err
	}
	return c.eventually(func() error { return u.checkCounts(c.args[1:]) })
}

func (u *upstream) checkCounts(args []string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(args) > 0 {
		cond, err := cutCondition(&args)
		if err != nil {
			return err
		}
		switch cond.name {
		case countConnections, countOpen, countConcurrent, countClosed, countRequests, countBodyBytes:
		default:
			return usageError(fmt.Sprintf("unknown counter %q", cond.name))
		}
		if got := u.counts[cond.name]; !cond.holds(float64(got)) {
			return fmt.Errorf("upstream %s: %s is %d, want %s", u.name, cond.name, got, cond)
		}
	}
	return nil
}

// condition compares a counter with a number.
type condition struct {
	name, op string
	want     float64
}

func (c condition) String() string {
	return c.op + " " + strconv.FormatFloat(c.want, 'f', -1, 64)
}

func (c condition) holds(got float64) bool {
	switch c.op {
	case "<=":
		return got <= c.want
	case ">=":
		return got >= c.want
	}
	return got == c.want
}

// cutCondition takes one condition from the front of args: `NAME N`, `NAME <=N` or `NAME >=N`, or the latter in one word.
func cutCondition(args *[]string) (condition, error) {
	word := (*args)[0]
	*args = (*args)[1:]
	cond := condition{name: word, op: "=="}
	value, found := "", false
	for _, op := range []string{"<=", ">="} {
		if cond.name, value, found = strings.Cut(word, op); found {
			cond.op = op
			break
		}
	}
	if !found {
		if len(*args) == 0 {
			return cond, usageError("a counter wants a number")
		}
		value, *args = (*args)[0], (*args)[1:]
		if op := value[:min(2, len(value))]; op == "<=" || op == ">=" {
			cond.op, value = op, value[2:]
		}
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return cond, usageError(fmt.Sprintf("bad number %q", value))
	}
	cond.want = n
	return cond, nil
}

// cmdUpstreamSaw: upstream-saw NAME puts all requests that the upstream has read into stdout, in the form of mode echo.
func cmdUpstreamSaw(c *call) error {
	u, err := c.upstream("upstream-saw NAME")
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c.stdout().Write(u.seen.Bytes())
	return nil
}

// parseFlags parses without printing.
func parseFlags(flags *flag.FlagSet, args []string) error {
	flags.SetOutput(io.Discard)
	return flags.Parse(args)
}
