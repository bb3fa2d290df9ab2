// Package redis keeps the buckets of a cluster's limits in Redis: it is the Source of limits.Cluster, which takes tokens ahead of need, and
// it takes for those who want to be exact and wait for it.
//
// Over the same connection it keeps Records: values that nodes share, with a journal of what becomes of them.
//
// For limits one goroutine speaks with Redis. What has been asked while it waited for answers it asks next, in one round trip: so Redis is never sent
// more than one batch at a time, and the more there is to do the less each question costs. Whoever waits for an answer waits no longer than
// the Timeout, whatever becomes of the connection; after one that was lost nobody waits, until Redis has answered again.
//
// All that is kept here is bounded: questions by maxWaiting, what is under way by maxBatch. In Redis a bucket is one short string, that
// expires when the bucket is full.
package redis

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Mode is what the addresses are.
type Mode string

// The modes.
const (
	Single   Mode = "single"
	Sentinel Mode = "sentinel" // of the sentinels that watch Master
	Cluster  Mode = "cluster"  // some of a cluster's nodes; the others are found by them
)

// Spec says where Redis is. New copies it.
type Spec struct {
	Addresses          []string // host:port, or unix:/path of a Single one
	Mode               Mode
	Username, Password string
	Database           int
	Master             string // with Sentinel
	// SentinelUsername and SentinelPassword are for the sentinels themselves.
	SentinelUsername, SentinelPassword string
	TLS                                *cryptotls.Config // nil: not encrypted
	Timeout                            time.Duration     // that anybody waits at most, 1 ms to 1 s
	Clock                              func() int64      // the time that limits go by, in ns
	Log                                *slog.Logger
}

// retryEvery is how often Redis is tried while it is away.
const retryEvery = 100 * time.Millisecond

// Client is the way to one Redis. Its methods may be called from anywhere; those that say so, on a loop.
type Client struct {
	spec      Spec
	digest    string
	questions chan question
	cancel    context.CancelFunc
	done      sync.WaitGroup

	conn   atomic.Pointer[rueidis.Client] // nil before Redis was reached once; made and closed by run
	away   atomic.Bool                    // nobody waits: the circuit is open
	counts counts

	mu      sync.Mutex
	since   time.Time // of away
	problem string    // the last one
}

type counts struct {
	commands, batches, errors, timeouts, dropped, alone, losses atomic.Uint64
}

// Status is what is known of a Client. Numbers are since its start.
type Status struct {
	Away     bool
	Since    time.Time // when it came to be away, or back
	Problem  string    // the last one; "": there was none
	Waiting  int       // questions for the next batch
	Commands uint64    // sent to Redis
	Batches  uint64    // in which they were sent, each a round trip
	Errors   uint64    // commands without a good answer
	Timeouts uint64    // takes that waited in vain
	Alone    uint64    // takes that did not wait, since Redis was away
	Dropped  uint64    // questions for which there was no room
	Losses   uint64    // times that Redis went away
}

// New gives a Client that asks nothing before Start. Until Redis has answered once it is away.
func New(s Spec) (*Client, error) {
	switch {
	case len(s.Addresses) == 0:
		return nil, errors.New("cannot make redis client: there is no address")
	case s.Timeout < time.Millisecond || s.Timeout > time.Second:
		return nil, fmt.Errorf("cannot make redis client: timeout %v is not within 1ms and 1s", s.Timeout)
	case s.Clock == nil || s.Log == nil:
		return nil, errors.New("cannot make redis client: it has no clock, or no log")
	}
	s.Addresses = append([]string(nil), s.Addresses...)
	c := &Client{spec: s, digest: digest(), questions: make(chan question, maxWaiting), since: time.Now()}
	c.away.Store(true)
	return c, nil
}

// Start begins to speak with Redis. It waits for nothing.
func (c *Client) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.done.Go(func() { c.run(ctx) })
}

// Close ends what Start began. What waits for an answer is told that there is none.
func (c *Client) Close() {
	if c.cancel == nil {
		return
	}
	c.away.Store(true)
	c.cancel()
	c.done.Wait()
}

// Away says that nobody waits for Redis now. It may be called on a loop.
func (c *Client) Away() bool { return c.away.Load() }

// CountAlone counts a take that did not come about because Redis was away. It may be called on a loop.
func (c *Client) CountAlone() { c.counts.alone.Add(1) }

// Timeout is how long anybody waits at most.
func (c *Client) Timeout() time.Duration { return c.spec.Timeout }

// Status reads what is known.
func (c *Client) Status() Status {
	n := &c.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{Away: c.Away(), Since: c.since, Problem: c.problem, Waiting: len(c.questions), Commands: n.commands.Load(), Batches: n.batches.Load(),
		Errors: n.errors.Load(), Timeouts: n.timeouts.Load(), Alone: n.alone.Load(), Dropped: n.dropped.Load(), Losses: n.losses.Load()}
}

// options are those of the library. It repeats nothing by itself: a question that is late is of no use any more.
func (c *Client) options() rueidis.ClientOption {
	s := &c.spec
	o := rueidis.ClientOption{
		InitAddress: s.Addresses, Username: s.Username, Password: s.Password, SelectDB: s.Database, TLSConfig: s.TLS, ClientName: "sluice",
		Dialer:           net.Dialer{Timeout: max(s.Timeout, 10*time.Millisecond), KeepAlive: time.Second},
		ConnWriteTimeout: time.Second, DisableRetry: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
		ForceSingleClient: s.Mode == Single,
	}
	if s.Mode == Sentinel {
		o.Sentinel = rueidis.SentinelOption{MasterSet: s.Master, Username: s.SentinelUsername, Password: s.SentinelPassword, TLSConfig: s.TLS,
			Dialer: o.Dialer, ClientName: "sluice"}
	}
	if path, socket := strings.CutPrefix(s.Addresses[0], "unix:"); socket {
		o.InitAddress = []string{path}
		o.DialCtxFn = func(ctx context.Context, _ string, d *net.Dialer, _ *cryptotls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		}
	}
	return o
}

// run speaks with Redis until ctx ends.
func (c *Client) run(ctx context.Context) {
	var conn rueidis.Client
	defer func() {
		if conn != nil {
			conn.Close()
		}
		for {
			select {
			case q := <-c.questions:
				c.refuse(&q, ErrAway)
			default:
				return
			}
		}
	}()
	retry := time.NewTimer(0)
	defer retry.Stop()
	batch := make([]question, 0, maxBatch)
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-c.questions:
			if c.Away() {
				c.refuse(&q, ErrAway)
				continue
			}
			c.ask(ctx, conn, c.gather(batch, q))
		case <-retry.C:
			if c.Away() {
				conn = c.try(ctx, conn)
			}
			retry.Reset(retryEvery)
		}
	}
}

// try finds out whether Redis is there, and connects to it the first time.
func (c *Client) try(ctx context.Context, conn rueidis.Client) rueidis.Client {
	if conn == nil {
		made, err := rueidis.NewClient(c.options())
		if err != nil {
			c.note(err)
			return nil
		}
		conn = made
		c.conn.Store(&made)
	}
	ctx, cancel := context.WithTimeout(ctx, c.spec.Timeout)
	defer cancel()
	if err := conn.Do(ctx, conn.B().Ping().Build()).Error(); err != nil {
		c.note(err)
		return conn
	}
	c.mu.Lock()
	c.since = time.Now()
	c.away.Store(false)
	c.mu.Unlock()
	c.spec.Log.Info("redis answers", "addresses", c.spec.Addresses)
	return conn
}

// lost opens the circuit.
func (c *Client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away.Swap(true) {
		return
	}
	c.since, c.problem = time.Now(), err.Error()
	c.counts.losses.Add(1)
	c.spec.Log.Warn("redis is away: nobody waits for it until it answers again", "addresses", c.spec.Addresses, "error", err)
}

func (c *Client) note(err error) {
	c.mu.Lock()
	c.problem = err.Error()
	c.mu.Unlock()
}
