package main

import (
	"context"
	cryptotls "crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

const childHandshakes = "handshakes" // the hidden subcommand of makeHandshakes

// handshake says what a request costs in connections.
type handshake int

const (
	handshakeKept    handshake = iota // connections are kept
	handshakeFull                     // a new connection for each request
	handshakeResumed                  // a new connection for each request, its session resumed
)

// tally is what makeHandshakes prints, as JSON. Times are in nanoseconds.
type tally struct {
	Full, Resumed int // connections that came to a whole answer
	Failed        int
	FirstFailure  string
	Elapsed       time.Duration
	Mean          time.Duration // from dialling to the answer
	P50, P99      time.Duration
}

func handshakesArgs(r *rig, s scenario, address string, seconds int) []string {
	args := []string{childHandshakes, "-address", address, "-path", s.path, "-body", strconv.Itoa(s.reply.bodyBytes),
		"-workers", strconv.Itoa(s.connections), "-seconds", strconv.Itoa(seconds)}
	if s.wire.tls {
		args = append(args, "-certificate", r.identity.certificate)
	}
	if s.option.fastOpen {
		args = append(args, "-fast-open")
	}
	if s.handshake == handshakeResumed {
		args = append(args, "-resume")
	}
	return args
}

// parseHandshakes refuses a run in which handshakes were of the other kind; one full one begins the resumed.
func parseHandshakes(s scenario, text []byte) (loadResult, error) {
	var t tally
	if err := json.Unmarshal(text, &t); err != nil {
		return loadResult{}, fmt.Errorf("cannot parse the handshakes' figures %q: %w", text, err)
	}
	if t.Failed > 0 {
		return loadResult{}, fmt.Errorf("%d of %d connections failed: %s", t.Failed, t.Failed+t.Full+t.Resumed, t.FirstFailure)
	}
	if s.handshake == handshakeFull && t.Resumed > 0 || s.handshake == handshakeResumed && t.Full != 1 {
		return loadResult{}, fmt.Errorf("wrong work: %d full and %d resumed handshakes", t.Full, t.Resumed)
	}
	return loadResult{requests: t.Full + t.Resumed, elapsed: t.Elapsed, mean: t.Mean, p50: t.P50, p99: t.P99}, nil
}

// makeHandshakes opens connections for the given time, each for one request, and prints a tally. No connection is given up
// when the time is over, so that the proxy has done no work that is not counted.
func makeHandshakes(ctx context.Context, args []string, _ io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet(childHandshakes, flag.ContinueOnError)
	address := flags.String("address", "", "proxy")
	path := flags.String("path", "/", "request target")
	bodyBytes := flags.Int("body", 0, "bytes of the body of every answer")
	workers := flags.Int("workers", 1, "connections at once")
	seconds := flags.Int("seconds", 1, "time")
	certificate := flags.String("certificate", "", "file of the proxy's certificate; empty: without TLS")
	fastOpen := flags.Bool("fast-open", false, "send requests in the SYN")
	resume := flags.Bool("resume", false, "resume sessions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	shared := target{address: *address, path: *path, bodyBytes: *bodyBytes, closing: true, fastOpen: *fastOpen}
	if *certificate != "" {
		leaf, err := readLeaf(*certificate)
		if err != nil {
			return err
		}
		shared.wire, shared.leaf = wire{tls: true}, leaf
	}
	first := visitor{target: shared}
	start := time.Now()
	if *resume {
		// One full handshake gives all workers their first ticket.
		first.config = shared.wire.clientConfig(shared.leaf)
		first.config.ClientSessionCache = &first.ticket
		first.visit(ctx)
	}
	visitors := make([]visitor, max(*workers, 1))
	var wait sync.WaitGroup
	for i := range visitors {
		v := &visitors[i]
		v.target, v.ticket = shared, first.ticket
		if shared.wire.tls {
			v.config = shared.wire.clientConfig(shared.leaf)
		}
		if *resume {
			v.config.ClientSessionCache = &v.ticket
		}
		wait.Go(func() {
			for end := start.Add(time.Duration(*seconds) * time.Second); time.Now().Before(end) && ctx.Err() == nil; {
				v.visit(ctx)
			}
		})
	}
	wait.Wait()
	return json.NewEncoder(stdout).Encode(tallyOf(append(visitors, first), time.Since(start)))
}

func tallyOf(visitors []visitor, elapsed time.Duration) tally {
	t := tally{Elapsed: elapsed}
	var latencies []time.Duration
	var sum time.Duration
	for _, v := range visitors {
		t.Full += v.full
		t.Resumed += v.resumed
		t.Failed += v.failed
		if v.firstFailure != nil && t.FirstFailure == "" {
			t.FirstFailure = v.firstFailure.Error()
		}
		latencies = append(latencies, v.latencies...)
	}
	if len(latencies) == 0 {
		return t
	}
	slices.Sort(latencies)
	for _, latency := range latencies {
		sum += latency
	}
	t.Mean = sum / time.Duration(len(latencies))
	t.P50, t.P99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	return t
}

// visitor opens one connection after the other. It is used by one goroutine.
type visitor struct {
	target target
	config *cryptotls.Config // nil: without TLS
	ticket ticket

	full, resumed, failed int
	firstFailure          error
	latencies             []time.Duration
}

func (v *visitor) visit(ctx context.Context) {
	began := time.Now()
	resumed, err := v.exchange(ctx)
	switch {
	case err != nil:
		v.failed++
		if v.firstFailure == nil {
			v.firstFailure = err
		}
		return
	case resumed:
		v.resumed++
	default:
		v.full++
	}
	v.latencies = append(v.latencies, time.Since(began).Round(time.Microsecond))
}

// exchange does all that a visit is: dial, handshake, one request, its answer, and the close, which is the proxy's.
func (v *visitor) exchange(ctx context.Context) (resumed bool, err error) {
	c := connection{target: v.target}
	if err := c.dial(ctx); err != nil {
		return false, err
	}
	raw := c.conn
	defer raw.Close() //nolint:errcheck // all that matters was read
	if v.config != nil {
		encrypted := cryptotls.Client(raw, v.config)
		c.conn = encrypted
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return false, err
		}
		resumed = encrypted.ConnectionState().DidResume
	}
	if err := c.send(); err != nil {
		return false, err
	}
	if err := c.receive(); err != nil {
		return false, err
	}
	return resumed, awaitClose(c.conn)
}

// awaitClose reads the end of what a server sends.
func awaitClose(conn net.Conn) error {
	n, err := conn.Read(make([]byte, 1))
	switch {
	case n > 0:
		return errors.New("more bytes than the answer's")
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// ticket shows its session again and again, until the server gives a newer one: without early data none of them minds. It is
// used by one goroutine.
type ticket struct {
	last *cryptotls.ClientSessionState
}

func (t *ticket) Get(string) (*cryptotls.ClientSessionState, bool) { return t.last, t.last != nil }

func (t *ticket) Put(_ string, session *cryptotls.ClientSessionState) {
	if session != nil {
		t.last = session
	}
}
