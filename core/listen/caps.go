package listen

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/limits"
)

const (
	// clientWords is the capacity of the table of clients: windows stay clear of overflow up to some 80,000 clients at once.
	clientWords = 1 << 18
	// rateClients is how many clients' rates are told apart; of more, those are forgotten that were idle for longest.
	rateClients = 1 << 16
)

// Rate is how many connections a client may make in a time, all at once if it likes. The zero Rate is none.
type Rate struct {
	Most   int
	Period time.Duration
}

// Caps counts the connections of a listener over all its loops, without locks. It lives as long as the listener's name, over
// reloads.
type Caps struct {
	open    atomic.Int64
	clients *limits.Connections
	rate    atomic.Pointer[limits.Limit] // of new connections by client; nil: no limit
	seed    limits.Seed
	shed    *Shed
}

// NewCaps gives caps with nothing open and no rate.
func NewCaps() *Caps {
	return &Caps{clients: limits.NewConnections(clientWords), seed: limits.NewSeed()}
}

// Configure puts a rate in force, under which as much is used as under the one before. It must be called by one goroutine at a time, not on a
// loop; now is nanoseconds of Unix time. A rate takes 4 MiB, resident as clients come.
func (c *Caps) Configure(r Rate, now int64) error {
	if r.Most == 0 {
		c.rate.Store(nil)
		return nil
	}
	spec := limits.Spec{Capacity: rateClients, Windows: []limits.Window{{Algorithm: limits.TokenBucket, Limit: uint32(r.Most), Period: r.Period}}}
	next, err := (*limits.Limit)(nil), error(nil)
	if l := c.rate.Load(); l != nil {
		next, err = l.Reconfigure(spec, now)
	} else {
		next, err = limits.NewLimit(spec)
	}
	if err == nil {
		c.rate.Store(next)
	}
	return err
}

// Open is the number of open connections on all loops. It may be called from anywhere.
func (c *Caps) Open() int { return int(c.open.Load()) }

// Untracked is how many connections were admitted without a count per client: see limits.Connections.
func (c *Caps) Untracked() uint64 { return c.clients.Untracked() }

// enter counts a connection unless most are open; most <= 0: no limit. Exact: no instant sees more than most.
func (c *Caps) enter(most int) bool {
	for {
		n := c.open.Load()
		if most > 0 && n >= int64(most) {
			return false
		}
		if c.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *Caps) leave() { c.open.Add(-1) }

// admit counts one more connection of a client, unless most of it are open or it comes too often. Who has no address is
// admitted. What it admitted ends with clients.Release.
func (c *Caps) admit(client netip.Addr, most int, now int64) (Reason, bool) {
	if rate := c.rate.Load(); rate != nil && client.IsValid() && !rate.Take(c.seed.Client(client), 1, now).Allowed {
		return OverConnectionRate, false
	}
	return OverConnectionsPerIP, c.clients.Take(client, most)
}
