package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// records are those of a space that no other test has.
func records(t testing.TB, c *Client, most int) *Records {
	return c.NewRecords(strings.ReplaceAll(t.Name(), "/", "_"), most)
}

func put(t testing.TB, r *Records, key string, begun int64, groups ...string) {
	t.Helper()
	if err := r.Put(t.Context(), &NewRecord{Key: key, Value: []byte("value of " + key), Groups: groups, Begun: begun, Idle: time.Minute, Until: begun + int64(time.Hour)}); err != nil {
		t.Fatal(err)
	}
}

// has says which of these keys are there.
func has(t testing.TB, r *Records, keys ...string) (there []string) {
	t.Helper()
	for _, key := range keys {
		switch x, err := r.Get(t.Context(), key); {
		case err == nil && string(x.Value) != "value of "+key:
			t.Errorf("%s is %q", key, x.Value)
		case err == nil:
			there = append(there, key)
		case !errors.Is(err, ErrNone):
			t.Error(err)
		}
	}
	return there
}

// TestRecords: what is put is there until it is ended, alone or with its group, or makes room for others.
func TestRecords(t *testing.T) {
	c := newServer(t).client(nil)
	r, now := records(t, c, 4), time.Now().UnixNano()
	put(t, r, "a", now, "x", "y")
	put(t, r, "b", now+1, "x")
	put(t, r, "c", now+2, "y")
	if got := has(t, r, "a", "b", "c", "d"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("there are %v", got)
	}
	if got := has(t, c.NewRecords("other", 4), "a"); len(got) != 0 {
		t.Errorf("another space has %v", got)
	}
	if n, err := r.Count(t.Context()); n != 3 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	for i, version := range []uint64{2, 1, 1} { // the first is of a version to come, the last of one that is over
		if done, err := r.Swap(t.Context(), "c", version, []byte("value of c")); done != (i == 1) || err != nil {
			t.Errorf("swap of version %d: %t %v", version, done, err)
		}
	}
	if x, err := r.Get(t.Context(), "c"); x.Version != 2 || x.Used != now+2 || err != nil {
		t.Errorf("%+v %v", x, err)
	}
	if n, err := r.EndGroup(t.Context(), "x", now); n != 1 || err != nil { // b began later
		t.Errorf("%d have ended: %v", n, err)
	}
	if got := has(t, r, "a", "b", "c"); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("there are %v", got)
	}
	if was, err := r.End(t.Context(), "b"); !was || err != nil {
		t.Errorf("%t %v", was, err)
	}
	if was, err := r.End(t.Context(), "b"); was || err != nil {
		t.Errorf("it ended twice: %v", err)
	}
	if done, err := r.Swap(t.Context(), "b", 1, []byte("x")); done || err != nil {
		t.Errorf("one that has ended is changed: %v", err)
	}
	if err := r.Touch(t.Context(), []Touch{{"b", now + 9, time.Minute}, {"c", now + 9, 2 * time.Minute}}); err != nil {
		t.Error(err)
	}
	if x, err := r.Get(t.Context(), "c"); x.Used != now+9 || err != nil {
		t.Errorf("%+v %v", x, err)
	}
	if got := has(t, r, "b"); len(got) != 0 {
		t.Error("a touch has brought one back")
	}
	if err := r.Touch(t.Context(), []Touch{{"c", now + 8, time.Second}}); err != nil {
		t.Error(err)
	}
	if x, err := r.Get(t.Context(), "c"); x.Used != now+9 || err != nil {
		t.Errorf("an older touch counts: %+v %v", x, err)
	}
	for i := range 6 {
		put(t, r, fmt.Sprint("d", i), now)
	}
	if got := has(t, r, "c", "d0", "d1", "d2", "d3", "d4", "d5"); len(got) != 4 || got[0] != "c" {
		t.Errorf("there are %v: c is touched until the last", got)
	}
	if keys, err := r.Keys(t.Context(), "d", 9); len(keys) != 3 || err != nil {
		t.Errorf("%v %v", keys, err)
	}
}

// TestRecordEnds: a record ends when it was not used, or at its latest end however often it is.
func TestRecordEnds(t *testing.T) {
	s := newServer(t)
	c := s.client(nil)
	r, now := records(t, c, 4), time.Now()
	for key, n := range map[string]NewRecord{"idle": {Idle: 100 * time.Millisecond, Until: now.Add(time.Hour).UnixNano()}, "over": {Idle: time.Hour, Until: now.Add(100 * time.Millisecond).UnixNano()}} {
		n.Key, n.Value, n.Begun = key, []byte("value of "+key), now.UnixNano()
		if err := r.Put(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Touch(t.Context(), []Touch{{"over", now.UnixNano() + 1, time.Hour}}); err != nil {
		t.Error(err)
	}
	s.await(func() bool { return len(has(t, r, "idle", "over")) == 0 }, "they do not end")
}

// TestRecordLock: one holds a lock, until he gives it back, or its time is over; nobody else gives it back.
func TestRecordLock(t *testing.T) {
	s := newServer(t)
	r := records(t, s.client(nil), 1)
	lock := func(holder string, want bool) {
		t.Helper()
		if got, err := r.Lock(t.Context(), "k", holder, 200*time.Millisecond); got != want || err != nil {
			t.Errorf("%s has it: %t %v", holder, got, err)
		}
	}
	lock("a", true)
	lock("b", false)
	if err := r.Unlock(t.Context(), "k", "b"); err != nil {
		t.Error(err)
	}
	lock("b", false)
	if err := r.Unlock(t.Context(), "k", "a"); err != nil {
		t.Error(err)
	}
	lock("b", true)
	s.await(func() bool {
		got, err := r.Lock(t.Context(), "k", "c", time.Minute)
		return got && err == nil
	}, "a lock does not end")
	for i, want := range []bool{true, false} {
		if got, err := r.Once(t.Context(), "what", time.Minute); got != want || err != nil {
			t.Errorf("%d: %t %v", i, got, err)
		}
	}
}

// heard is what a follower was told.
type heard struct {
	mu     sync.Mutex
	begun  int
	lost   int
	events []string
	proofs int
}

func (h *heard) read() (begun, lost, proofs int, events []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.begun, h.lost, h.proofs, slices.Clone(h.events)
}

// follows begins to follow, until the test ends.
func follows(t testing.TB, r *Records) *heard {
	h := &heard{}
	locked := func(f func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		f()
	}
	f := &Follower{Begin: func(context.Context) error { locked(func() { h.begun++ }); return nil }, Heard: func(int64) { locked(func() { h.proofs++ }) },
		Lost:  func() { locked(func() { h.lost++ }) },
		Ended: func(key string) { locked(func() { h.events = append(h.events, "end "+key) }) }, Changed: func(key string) { locked(func() { h.events = append(h.events, "change "+key) }) }}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Follow(ctx, f) })
	t.Cleanup(func() { cancel(); done.Wait() })
	await(t, func() bool { _, _, proofs, _ := h.read(); return proofs > 0 }, "nothing is heard")
	return h
}

// TestFollow: everybody who follows hears of each end and change, in order, and is told when he may have missed something.
func TestFollow(t *testing.T) {
	s := newServer(t)
	c := s.client(nil)
	r, now := records(t, c, 100), time.Now().UnixNano()
	all := []*heard{follows(t, r), follows(t, records(t, s.client(nil), 100))}
	want := []string{"change a", "end a", "end b", "end c"}
	put(t, r, "a", now)
	put(t, r, "b", now, "g")
	put(t, r, "c", now+1, "g")
	if _, err := r.Swap(t.Context(), "a", 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.End(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if n, err := r.EndGroup(t.Context(), "g", now+1); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for _, h := range all {
		await(t, func() bool { _, _, _, events := h.read(); return len(events) >= len(want) }, "not all is heard")
		if begun, lost, _, events := h.read(); !slices.Equal(events, want) || begun != 1 || lost != 0 {
			t.Errorf("begun %d, lost %d: %v", begun, lost, events)
		}
	}
	// again waits until everybody was told, after do, that he may have missed something. A slow answer may have it told besides.
	again := func(what string, do func()) {
		t.Helper()
		var before []int
		for _, h := range all {
			begun, _, _, _ := h.read()
			before = append(before, begun)
		}
		do()
		for i, h := range all {
			await(t, func() bool { begun, lost, _, _ := h.read(); return begun > before[i] && lost == begun-1 }, what+" is not noticed")
		}
	}
	ask := func(build func(rueidis.Builder) rueidis.Completed) {
		t.Helper()
		if err := (*c.conn.Load()).Do(t.Context(), build((*c.conn.Load()).B())).Error(); err != nil {
			t.Fatal(err)
		}
	}
	again("a gap", func() {
		ask(func(b rueidis.Builder) rueidis.Completed { return b.Incr().Key(r.count()).Build() }) // a line that nobody can read
		put(t, r, "d", now)
		if _, err := r.End(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
	})
	again("a Redis that has forgotten all", func() {
		ask(func(b rueidis.Builder) rueidis.Completed { return b.Flushall().Build() })
	})
	if _, err := r.End(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		await(t, func() bool { _, _, _, events := h.read(); return events[len(events)-1] == "end e" }, "what comes afterwards is not heard")
	}
	begun, _, _, _ := all[0].read()
	s.kill()
	await(t, func() bool { _, lost, _, _ := all[0].read(); return lost >= begun }, "a Redis that is gone is not noticed")
	s.start()
	await(t, func() bool { again, _, _, _ := all[0].read(); return again > begun }, "a Redis that is back is not noticed")
}

// TestRecordsAway: nobody waits while Redis is away.
func TestRecordsAway(t *testing.T) {
	s := newServer(t)
	c := s.client(briefly)
	r := records(t, c, 1)
	s.pause()
	start := time.Now()
	for range 100 {
		if _, err := r.Get(t.Context(), "a"); err == nil {
			t.Fatal("there is an answer")
		}
	}
	if took := time.Since(start); took > 2500*time.Millisecond { // one timeout of 50 ms; the machine may be busy
		t.Errorf("100 questions waited for %v", took)
	}
	s.resume()
	s.await(func() bool { _, err := r.Get(t.Context(), "a"); return errors.Is(err, ErrNone) }, "Redis is not found again")
}
