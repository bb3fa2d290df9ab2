package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Follower hears what becomes of records, from one goroutine, in the order in which it happened.
type Follower struct {
	// Begin is told before anything else when Redis is there, or there again, or when something may have been missed: what is known of
	// records is to be doubted. An error has it told again, later.
	Begin func(ctx context.Context) error
	// Ended and Changed tell of one record.
	Ended, Changed func(key string)
	// Heard says that all that had happened at that Unix time in nanoseconds was told.
	Heard func(at int64)
	// Lost says that from now on nothing is heard.
	Lost func()
}

const (
	// journalWait is how long Redis waits for news before it says that there are none: so often it is known that nothing was missed.
	journalWait = 500 * time.Millisecond
	journalLots = 1000 // lines that are read at once
)

// errGap says that something may have been missed.
var errGap = errors.New("the journal of records has a gap")

// Follow tells f until ctx ends. It has a connection of its own of those that wait.
func (r *Records) Follow(ctx context.Context, f *Follower) {
	var said string // the last problem, which is logged once
	for ctx.Err() == nil {
		err := r.follow(ctx, f)
		f.Lost()
		if err != nil && !errors.Is(err, ErrAway) && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			r.client.spec.Log.Warn("what becomes of shared records is not heard", "error", err)
		}
		if !errors.Is(err, errGap) {
			pause(ctx, retryEvery)
		}
	}
}

func (r *Records) follow(ctx context.Context, f *Follower) error {
	at := time.Now().UnixNano()
	last, err := r.told(ctx)
	if err != nil {
		return err
	}
	if err := f.Begin(ctx); err != nil {
		return err
	}
	f.Heard(at)
	behind := false // there were more lines than came
	for ctx.Err() == nil {
		at := time.Now().UnixNano()
		lines, err := r.news(ctx, last)
		if err != nil {
			return err
		}
		for i := range lines {
			n, err := strconv.ParseUint(strings.TrimSuffix(lines[i].ID, "-0"), 10, 64)
			if err != nil || n != last+1 {
				return errGap
			}
			last = n
			if key, ok := lines[i].FieldValues["end"]; ok {
				f.Ended(key)
			} else if key, ok := lines[i].FieldValues["change"]; ok {
				f.Changed(key)
			}
		}
		was := behind
		if behind = len(lines) == journalLots; len(lines) == 0 { // a journal that was lost has no news, either
			n, err := r.told(ctx)
			if behind = n > last; err != nil {
				return err
			} else if n < last || was && behind {
				return errGap
			}
		}
		if !behind {
			f.Heard(at)
		}
	}
	return nil
}

// told is how many lines the journal has had.
func (r *Records) told(ctx context.Context) (uint64, error) {
	n, err := r.do(ctx, func(b rueidis.Builder) rueidis.Completed { return b.Get().Key(r.count()).Build() }).AsUint64()
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	return n, err
}

// news gives the lines after the last, and waits for some.
func (r *Records) news(ctx context.Context, last uint64) ([]rueidis.XRangeEntry, error) {
	all, err := r.with(ctx, journalWait, func(ctx context.Context, conn rueidis.Client) rueidis.RedisResult {
		return conn.Do(ctx, conn.B().Xread().Count(journalLots).Block(journalWait.Milliseconds()).Streams().Key(r.journal()).Id(strconv.FormatUint(last, 10)+"-0").Build())
	}).AsXRead()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	return all[r.journal()], err
}

// pause waits that long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
