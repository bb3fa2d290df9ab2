// Package redis keeps the buckets of a cluster's limits in Redis: it is the Source of limits.Cluster, which takes tokens ahead of need, and
// it takes for those who want to be exact and wait for it.
//
// For limits one goroutine speaks with Redis, or with each shard of a Redis cluster. What has been asked while it waited for answers it asks
// next, in one round trip: so Redis is never sent more than one batch at a time, and the more there is to do the less each question costs.
// Whoever waits for an answer waits no longer than the Timeout, whatever becomes of the connection; after one that was lost nobody waits,
// until Redis has answered again. That is so of each shard by itself: what becomes of one is nothing to those who ask for the keys of another.
//
// Over the same connection it keeps Records: values that nodes share, with a journal of what becomes of them.
//
// All that is kept here is bounded: questions by maxWaiting, what is under way by maxBatch, of each shard. In Redis a bucket is one short string, that
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
	spec   Spec
	digest string
	layout atomic.Pointer[layout]
	conn   atomic.Pointer[rueidis.Client] // nil: it has never been there
	ctx    context.Context                // of the goroutines; set by Start
	cancel context.CancelFunc
	done   sync.WaitGroup // of run
	parts  sync.WaitGroup // of those who speak
	counts counts

	mu      sync.Mutex // guards also that a part's away and probe change together
	since   time.Time  // of away
	problem string     // the last one
}

type counts struct {
	commands, batches, errors, timeouts, dropped, alone, losses atomic.Uint64
}

// Status is what is known of a Client. Numbers are since its start.
type Status struct {
	Away     bool      // all of it
	Shards   int       // of a Redis cluster; 1 of another, or before they are known
	Missing  int       // of the Shards: those that are away
	Since    time.Time // when one came to be away, or back
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
	c := &Client{spec: s, digest: digest(), since: time.Now()}
	first := newPart(c, 0)
	c.layout.Store(&layout{parts: []*part{first}, used: []*part{first}})
	return c, nil
}

// Start begins to speak with Redis. It waits for nothing.
func (c *Client) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx, c.cancel = ctx, cancel
	c.speak(c.layout.Load().parts[0])
	c.done.Go(func() { c.run(ctx) })
}

// Close ends what Start began. What waits for an answer is told that there is none.
func (c *Client) Close() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	c.done.Wait() // from now on no part is new
	for _, p := range c.layout.Load().parts {
		p.away.Store(true)
	}
	c.parts.Wait()
	if conn := c.conn.Load(); conn != nil {
		(*conn).Close()
	}
}

// speak begins to speak with p.
func (c *Client) speak(p *part) {
	c.parts.Go(func() { p.speak(c.ctx) })
	c.parts.Go(func() { p.turnAway(c.ctx) })
}

// Away says that nobody waits for any part of Redis now. It may be called on a loop.
func (c *Client) Away() bool {
	l := c.layout.Load()
	return l.away() == len(l.used)
}

// CountAlone counts a take that did not come about because Redis was away. It may be called on a loop.
func (c *Client) CountAlone() { c.counts.alone.Add(1) }

// Timeout is how long anybody waits at most.
func (c *Client) Timeout() time.Duration { return c.spec.Timeout }

// Status reads what is known.
func (c *Client) Status() Status {
	n, l := &c.counts, c.layout.Load()
	missing, waiting := l.away(), 0
	for _, p := range l.parts {
		waiting += len(p.questions)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{Away: missing == len(l.used), Shards: len(l.used), Missing: missing, Since: c.since, Problem: c.problem, Waiting: waiting, Commands: n.commands.Load(), Batches: n.batches.Load(),
		Errors: n.errors.Load(), Timeouts: n.timeouts.Load(), Alone: n.alone.Load(), Dropped: n.dropped.Load(), Losses: n.losses.Load()}
}

// options are those of the library. It repeats nothing by itself: a question that is late is of no use any more.
func (c *Client) options() rueidis.ClientOption {
	s := &c.spec
	o := rueidis.ClientOption{
		InitAddress: s.Addresses, Username: s.Username, Password: s.Password, SelectDB: s.Database, TLSConfig: s.TLS, ClientName: "sluice",
		Dialer:           net.Dialer{Timeout: c.patience(), KeepAlive: time.Second},
		ConnWriteTimeout: time.Second, DisableRetry: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
		ForceSingleClient: s.Mode == Single,
	}
	if s.Mode == Sentinel {
		o.Sentinel = rueidis.SentinelOption{MasterSet: s.Master, Username: s.SentinelUsername, Password: s.SentinelPassword, TLSConfig: s.TLS,
			Dialer: o.Dialer, ClientName: "sluice", TopologyRefreshInterval: relearnEvery} // for a message of a sentinel that was missed
	}
	if path, socket := strings.CutPrefix(s.Addresses[0], "unix:"); socket {
		o.InitAddress = []string{path}
		o.DialCtxFn = func(ctx context.Context, _ string, d *net.Dialer, _ *cryptotls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		}
	}
	return o
}

// patience bounds what nobody waits for: to connect, to try, to learn who has what. A handshake of TLS may take longer than a Timeout.
func (c *Client) patience() time.Duration { return max(c.spec.Timeout, 250*time.Millisecond) }

// run connects, and learns of a cluster who has what, until ctx ends.
func (c *Client) run(ctx context.Context) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		pause := retryEvery
		conn := c.conn.Load()
		switch {
		case conn == nil:
			made, err := rueidis.NewClient(c.options())
			if err != nil {
				c.note(err)
				break
			}
			c.conn.Store(&made)
			if c.spec.Mode != Cluster {
				return
			}
			c.learn(ctx, made)
		default:
			if c.learn(ctx, *conn); c.layout.Load().away() == 0 {
				pause = relearnEvery
			}
		}
		wait.Reset(pause)
	}
}

func (c *Client) note(err error) {
	c.mu.Lock()
	c.problem = err.Error()
	c.mu.Unlock()
}
