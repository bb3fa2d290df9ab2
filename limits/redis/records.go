package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// Records are values that nodes share under keys, each with an end, and a journal of which have changed or ended. What a value says is the
// caller's alone: here it is bytes. Its methods wait for Redis, at most the Timeout, and not at all while it is away; none is called on
// a loop.
//
// All that belongs to one space has one hash tag, so a step of it is one script, in a cluster of Redis too.
type Records struct {
	client  *Client
	prefix  string
	slot    int // of all of them, in a cluster of Redis
	most    int
	scripts recordScripts
}

// Record is one value.
type Record struct {
	Value   []byte
	Version uint64 // from 1; each change counts
	Used    int64  // when it was used last, as Unix time in nanoseconds
}

// NewRecord is what Put keeps.
type NewRecord struct {
	Key    string
	Value  []byte
	Groups []string      // that it can be ended by
	Begun  int64         // as Unix time in nanoseconds
	Idle   time.Duration // after which it ends unless it is touched
	Until  int64         // after which it ends, as Unix time in nanoseconds
}

// Touch says that a record was used.
type Touch struct {
	Key  string
	Used int64 // as Unix time in nanoseconds
	Idle time.Duration
}

// ErrNone says that there is no such record.
var ErrNone = errors.New("no such record")

// NewRecords gives those of a space: text without braces, the same on all nodes. There are at most so many; who is idle longest makes room.
func (c *Client) NewRecords(space string, most int) *Records {
	r := &Records{client: c, prefix: "sluice:records:{" + space + "}:", most: most, scripts: newRecordScripts()}
	if c.spec.Mode == Cluster {
		sum, _ := checksum(r.prefix)
		r.slot = int(sum) % slots
	}
	return r
}

func (r *Records) name(key string) string   { return r.prefix + "v:" + key }
func (r *Records) group(name string) string { return r.prefix + "g:" + name }
func (r *Records) count() string            { return r.prefix + "n" }
func (r *Records) journal() string          { return r.prefix + "journal" }
func (r *Records) all() string              { return r.prefix + "all" }

// Put keeps one that was not there.
func (r *Records) Put(ctx context.Context, n *NewRecord) error {
	now := time.Now()
	keys := []string{r.name(n.Key), r.count(), r.journal(), r.all()}
	for _, g := range n.Groups {
		keys = append(keys, r.group(g))
	}
	end := now.Add(n.Idle).UnixMilli()
	return r.exec(ctx, r.scripts.put, keys, n.Key, rueidis.BinaryString(n.Value), decimal(n.Begun), decimal(n.Idle.Milliseconds()), decimal(min(end, n.Until/1e6)),
		decimal(n.Until/1e6), decimal(int64(r.most)), r.name(""), decimal(now.UnixMilli())).Error()
}

// Get gives one; ErrNone.
func (r *Records) Get(ctx context.Context, key string) (Record, error) {
	var out Record
	all, err := r.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Hmget().Key(r.name(key)).Field("v", "n", "u").Build()
	}).ToArray()
	if err != nil {
		return out, err
	}
	var text [3]string
	for i := range min(len(all), len(text)) {
		if all[i].IsNil() {
			return out, ErrNone
		}
		if text[i], err = all[i].ToString(); err != nil {
			return out, err
		}
	}
	out.Value = []byte(text[0])
	var failed [2]error
	out.Version, failed[0] = strconv.ParseUint(text[1], 10, 64)
	out.Used, failed[1] = strconv.ParseInt(text[2], 10, 64)
	return out, errors.Join(failed[:]...)
}

// Swap puts another value in the place of one that is of that version still; false: it has changed, or ended.
func (r *Records) Swap(ctx context.Context, key string, version uint64, value []byte) (bool, error) {
	n, err := r.exec(ctx, r.scripts.swap, []string{r.name(key), r.count(), r.journal()}, key, strconv.FormatUint(version, 10), rueidis.BinaryString(value)).AsInt64()
	return n == 1, err
}

// maxTouches bounds what is told of uses in one round trip.
const maxTouches = 512

// Touch puts off the ends of those that are there still. It brings none back.
func (r *Records) Touch(ctx context.Context, all []Touch) error {
	for len(all) > 0 {
		n := min(len(all), maxTouches)
		many := make([]rueidis.LuaExec, n)
		for i, t := range all[:n] {
			end := time.Unix(0, t.Used).Add(t.Idle).UnixMilli()
			many[i] = rueidis.LuaExec{Keys: []string{r.name(t.Key), r.all()}, Args: []string{t.Key, decimal(t.Used), decimal(end)}}
		}
		if err := r.each(ctx, r.scripts.touch, many); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// End ends one, and tells all who follow; false: it was not there.
func (r *Records) End(ctx context.Context, key string) (bool, error) {
	n, err := r.exec(ctx, r.scripts.end, []string{r.name(key), r.count(), r.journal(), r.all()}, key).AsInt64()
	return n == 1, err
}

// EndGroup ends those of a group that began until then, as Unix time in nanoseconds, and says how many.
func (r *Records) EndGroup(ctx context.Context, group string, begun int64) (int, error) {
	n, err := r.exec(ctx, r.scripts.endGroup, []string{r.group(group), r.count(), r.journal(), r.all()}, r.name(""), decimal(begun)).AsInt64()
	return int(n), err
}

// Once says whether nobody has said this before, of all nodes, within that time.
func (r *Records) Once(ctx context.Context, what string, keep time.Duration) (bool, error) {
	return r.set(ctx, r.prefix+"once:"+what, "1", keep)
}

// Lock takes a lock that ends by itself after that time; false: another has it. Holder is what nobody else can know.
func (r *Records) Lock(ctx context.Context, key, holder string, keep time.Duration) (bool, error) {
	return r.set(ctx, r.prefix+"lock:"+key, holder, keep)
}

// Unlock gives a lock back, if it is the holder's still.
func (r *Records) Unlock(ctx context.Context, key, holder string) error {
	return r.exec(ctx, r.scripts.unlock, []string{r.prefix + "lock:" + key}, holder).Error()
}

func (r *Records) set(ctx context.Context, key, value string, keep time.Duration) (bool, error) {
	err := r.do(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Set().Key(key).Value(value).Nx().Px(max(keep, time.Millisecond)).Build()
	}).Error()
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	return err == nil, err
}

// scanCount is how many keys Redis looks at in one step of Keys.
const scanCount = 1000

// Keys gives those, at most so many, that begin with a prefix of hexadecimal digits. It looks at all there are, and is for operators.
func (r *Records) Keys(ctx context.Context, prefix string, most int) (found []string, err error) {
	for cursor := uint64(0); ; {
		e, err := r.do(ctx, func(b rueidis.Builder) rueidis.Completed {
			return b.Zscan().Key(r.all()).Cursor(cursor).Match(prefix + "*").Count(scanCount).Build()
		}).AsScanEntry()
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(e.Elements); i += 2 { // each with its score
			if len(found) < most {
				found = append(found, e.Elements[i])
			}
		}
		if cursor = e.Cursor; cursor == 0 || len(found) == most {
			return found, nil
		}
	}
}

// Count is how many there are, with those that have ended by themselves since the last Put.
func (r *Records) Count(ctx context.Context) (int, error) {
	n, err := r.do(ctx, func(b rueidis.Builder) rueidis.Completed { return b.Zcard().Key(r.all()).Build() }).AsInt64()
	return int(n), err
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// do asks one thing, beside what others ask.
func (r *Records) do(ctx context.Context, build func(rueidis.Builder) rueidis.Completed) rueidis.RedisResult {
	return r.with(ctx, 0, func(ctx context.Context, conn rueidis.Client) rueidis.RedisResult {
		return conn.Do(ctx, build(conn.B()))
	})
}

func (r *Records) exec(ctx context.Context, script *rueidis.Lua, keys []string, args ...string) rueidis.RedisResult {
	return r.with(ctx, 0, func(ctx context.Context, conn rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, conn, keys, args)
	})
}

// each runs a script for many keys in one round trip. The first that failed is told.
func (r *Records) each(ctx context.Context, script *rueidis.Lua, many []rueidis.LuaExec) error {
	return r.with(ctx, 0, func(ctx context.Context, conn rueidis.Client) rueidis.RedisResult {
		r.client.counts.commands.Add(uint64(len(many) - 1)) // with counts one
		all := script.ExecMulti(ctx, conn, many...)
		for i := range all {
			if all[i].Error() != nil {
				return all[i]
			}
		}
		return all[0]
	}).Error()
}

// with asks Redis beside the batches of limits, over the same connection, and counts how that goes. It waits at most the Timeout, and longer
// besides.
func (r *Records) with(ctx context.Context, longer time.Duration, ask func(context.Context, rueidis.Client) rueidis.RedisResult) rueidis.RedisResult {
	c := r.client
	p, conn := c.layout.Load().at(r.slot), c.conn.Load()
	if conn == nil || p.away.Load() {
		return rueidis.NewErrorResult(ErrAway)
	}
	ctx, cancel := context.WithTimeout(ctx, c.spec.Timeout+longer)
	defer cancel()
	c.counts.commands.Add(1)
	c.counts.batches.Add(1)
	a := ask(ctx, *conn)
	err := a.NonRedisError()
	if said, ok := rueidis.IsRedisErr(a.Error()); ok && (said.IsClusterDown() || said.IsLoading()) {
		err = said
	}
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		c.counts.errors.Add(1)
		if errors.Is(err, context.DeadlineExceeded) {
			c.counts.timeouts.Add(1)
		}
		c.note(err)
		p.lost(err, r.count())
	}
	return a
}
