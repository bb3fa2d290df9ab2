package redis

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// part is what fails and comes back together: all of a single Redis, or a shard of a cluster. One goroutine speaks with it, one batch
// at a time, so that a shard that is slow or away holds up nobody but those who ask for its own keys.
type part struct {
	client    *Client
	number    int
	questions chan question
	away      atomic.Bool            // nobody waits: the circuit is open
	probe     atomic.Pointer[string] // a key that it has
}

func newPart(c *Client, number int) *part {
	p := &part{client: c, number: number, questions: make(chan question, maxWaiting)}
	key := keyPrefix + "probe"
	p.probe.Store(&key)
	p.away.Store(true)
	return p
}

// turnAway refuses those that wait while the part is away, until ctx ends: whoever speaks with it may be at it for longer than anybody
// should wait, for the library closes and makes connections by times of its own.
func (p *part) turnAway(ctx context.Context) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for waiting := len(p.questions); waiting > 0 && p.away.Load(); waiting-- {
			select {
			case q := <-p.questions:
				p.client.refuse(&q, ErrAway)
			default: // the other has had it
			}
		}
	}
}

// speak answers questions until ctx ends, and then those that wait.
func (p *part) speak(ctx context.Context) {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	batch := make([]question, 0, maxBatch)
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case q := <-p.questions:
					p.client.refuse(&q, ErrAway)
				default:
					return
				}
			}
		case q := <-p.questions:
			if p.away.Load() {
				p.client.refuse(&q, ErrAway)
				continue
			}
			p.ask(ctx, *p.client.conn.Load(), p.gather(batch, q))
		case <-retry.C:
			if conn := p.client.conn.Load(); conn != nil && p.away.Load() {
				p.try(ctx, *conn)
			}
		}
	}
}

// try finds out whether the part is there: whether it answers in time, once there is a connection.
func (p *part) try(ctx context.Context, conn rueidis.Client) {
	c := p.client
	ctx, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	for range 2 {
		start := time.Now()
		command := conn.B().Evalsha().Sha1(c.digest).Numkeys(1).Key(*p.probe.Load()).Arg("ping").Build()
		err := conn.Do(ctx, command).Error()
		if said, ok := rueidis.IsRedisErr(err); err != nil && !(ok && said.IsNoScript()) {
			c.note(err)
			return
		}
		if time.Since(start) <= c.spec.Timeout {
			p.back()
			return
		}
	}
	c.note(ErrTimeout)
}

// back closes the circuit.
func (p *part) back() {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.away.Swap(false) {
		c.since = time.Now()
		c.spec.Log.Info("redis answers", "addresses", c.spec.Addresses, "part", p.number)
	}
}

// lost opens the circuit, since there was no answer about key.
func (p *part) lost(err error, key string) {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.away.Load() {
		return
	}
	p.probe.Store(&key)
	p.away.Store(true)
	c.since, c.problem = time.Now(), err.Error()
	c.counts.losses.Add(1)
	c.spec.Log.Warn("redis is away: nobody waits for it until it answers again", "addresses", c.spec.Addresses, "part", p.number, "error", err)
}

// gather takes the questions that wait, after the first.
func (p *part) gather(batch []question, first question) []question {
	batch = append(batch[:0], first)
	for len(batch) < maxBatch {
		select {
		case q := <-p.questions:
			batch = append(batch, q)
		default:
			return batch
		}
	}
	return batch
}

// ask asks a batch in one round trip, and tells everybody his answer.
func (p *part) ask(ctx context.Context, conn rueidis.Client, batch []question) {
	ctx, cancel := context.WithTimeout(ctx, p.client.spec.Timeout)
	defer cancel()
	now := time.Now()
	kept := batch[:0]
	for _, q := range batch {
		if q.call == nil || now.Before(q.call.until) {
			kept = append(kept, q) // for the others nobody waits, and nothing is to be taken
		}
	}
	again := p.send(ctx, conn, kept, func(keys, args []string) rueidis.Completed {
		return conn.B().Evalsha().Sha1(p.client.digest).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	})
	if len(again) > 0 { // Redis has been started anew, or is another one
		p.send(ctx, conn, again, func(keys, args []string) rueidis.Completed {
			return conn.B().Eval().Script(script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		})
	}
}

// send gives those questions back to which Redis said that it does not know the script.
func (p *part) send(ctx context.Context, conn rueidis.Client, batch []question, build func(keys, args []string) rueidis.Completed) (again []question) {
	if len(batch) == 0 {
		return nil
	}
	c := p.client
	commands, names := make(rueidis.Commands, len(batch)), make([][]string, len(batch))
	for i := range batch {
		keys, args := batch[i].command()
		commands[i], names[i] = build(keys, args), keys
	}
	c.counts.commands.Add(uint64(len(commands)))
	c.counts.batches.Add(1)
	for i, r := range conn.DoMulti(ctx, commands...) {
		a := readAnswer(r, len(names[i]))
		said, ok := rueidis.IsRedisErr(a.err)
		switch {
		case ok && said.IsNoScript():
			again = append(again, batch[i])
			continue
		case a.err != nil:
			c.counts.errors.Add(1)
			c.note(a.err)
			if !ok || said.IsClusterDown() || said.IsLoading() {
				p.lost(a.err, names[i][0])
			}
		}
		c.answer(&batch[i], a)
	}
	return again
}
