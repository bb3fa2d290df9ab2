package limits

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Another rate keeps what is used, to the token: nothing starts full, and nobody is charged twice.
func TestReconfigureKeepsUsed(t *testing.T) {
	f := func(from, to Window, used, want uint32) {
		t.Helper()
		const now = 50_000 * sec
		l := mustLimit(t, 100, from)
		l.Take(key(1), used, now)
		n, err := l.Reconfigure(Spec{Windows: []Window{to}, Capacity: 100}, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := taken(n, key(1), now); got != want {
			t.Errorf("%+v to %+v: %d used of %d, want %d", from, to, got, used, want)
		}
		if got := taken(n, key(2), now); got != 0 {
			t.Errorf("a fresh key has used %d", got)
		}
		// The old limit understands what the new one writes.
		n.Take(key(1), 1, now)
		if got := taken(l, key(1), now); want < n.rules[0].Limit && got != min(want+1, uint32(l.rules[0].capacity())) {
			t.Errorf("%+v to %+v: the old limit sees %d used, want %d", from, to, got, want+1)
		}
	}
	minute := func(n, burst uint32) Window { return Window{Limit: n, Burst: burst, Period: time.Minute} }
	f(minute(100, 0), minute(1000, 0), 60, 60)
	f(minute(1000, 10), minute(100, 10), 10, 10)
	f(minute(1000, 0), minute(100, 0), 60, 60)
	f(minute(1000, 0), minute(100, 0), 600, 100)
	f(minute(100, 0), Window{Limit: 7, Burst: 100, Period: time.Second}, 60, 60)
	fixed := func(n uint32) Window { return Window{Algorithm: FixedWindow, Limit: n, Period: time.Hour} }
	f(fixed(100), fixed(200), 60, 60)
	f(fixed(100), fixed(50), 60, 50)
	sliding := func(n uint32) Window { return Window{Algorithm: SlidingWindow, Limit: n, Period: time.Hour} }
	f(sliding(100), sliding(200), 60, 60)
	f(sliding(100), Window{Algorithm: SlidingWindow, Limit: 200, Period: time.Minute}, 60, 60)
	f(Window{Algorithm: LeakyBucket, Limit: 10, Period: time.Second, MaxWait: 2 * time.Second}, Window{Algorithm: LeakyBucket, Limit: 5, Period: time.Second, MaxWait: 4 * time.Second}, 15, 15)
	f(minute(100, 0), fixed(100), 60, 60)
	f(fixed(100), minute(100, 0), 60, 60)
}

// Many changes, one after the other, while loops take with the limit of their time: the count of the generations wraps,
// and in the end exactly what was admitted is used.
func TestReconfigureAgain(t *testing.T) {
	const hour = time.Hour
	l := mustLimit(t, 100, Window{Limit: 50_000, Period: hour}, Window{Algorithm: FixedWindow, Limit: 60_000, Period: hour})
	previous, used := l, map[int]uint32{10: 20_000} // one that does not come again
	l.Take(key(10), 20_000, 0)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 50 {
		for range 100 {
			k := r.IntN(10)
			limit := l
			if r.IntN(3) == 0 {
				limit = previous // an exchange of the configuration before
			}
			if limit.Take(key(k), 2, 0).Allowed {
				used[k] += 2
			}
		}
		n, err := l.Reconfigure(Spec{Windows: []Window{{Limit: []uint32{40_000, 50_000, 60_000}[i%3], Period: hour}, {Algorithm: FixedWindow, Limit: 60_000, Period: hour}}, Capacity: 100}, 0)
		if err != nil {
			t.Fatal(err)
		}
		previous, l = l, n
	}
	for k := range 11 {
		if got := taken(l, key(k), 0); got < used[k] || got > used[k]+50 { // a token is rounded up in each change at most
			t.Errorf("key %d: %d used, want %d", k, got, used[k])
		}
	}
	same, err := l.Reconfigure(Spec{Windows: []Window{l.rules[0].Window, l.rules[1].Window}, Capacity: 100}, 0)
	if err != nil || same != l {
		t.Fatalf("the same windows made another limit: %v", err)
	}
	if _, err := l.Reconfigure(Spec{Windows: []Window{{}}}, 0); err == nil || !strings.Contains(err.Error(), "limit is 0") {
		t.Fatalf("%v", err)
	}
}

// Another capacity, or more windows than a slot has words: the buckets move.
func TestReconfigureMoves(t *testing.T) {
	w := Window{Limit: 100, Period: time.Hour}
	l := mustLimit(t, 1000, w)
	for i := range 500 {
		l.Take(key(i), uint32(i%90), 0)
	}
	for _, s := range []Spec{{[]Window{w}, 5000}, {[]Window{{Limit: 200, Period: time.Hour}, w, w}, 1000}} {
		n, err := l.Reconfigure(s, 0)
		if err != nil || n.Stats().Bytes != TableBytes(s.Capacity) {
			t.Fatal(err, n.Stats())
		}
		for i := range 500 {
			if got := taken(n, key(i), 0); got != uint32(i%90) {
				t.Fatalf("key %d: %d used, want %d", i, got, i%90)
			}
		}
	}
}

// Changes while everybody takes lose nothing: what is admitted of a big bucket is what is gone of it.
func TestReconfigureRace(t *testing.T) {
	specs := [2]Spec{{[]Window{{Limit: 1_000_000, Period: 24 * time.Hour}}, 100}, {[]Window{{Limit: 2_000_000, Burst: 1_000_000, Period: 24 * time.Hour}}, 100}}
	l, err := NewLimit(specs[0])
	if err != nil {
		t.Fatal(err)
	}
	var current sync.Map
	current.Store(0, l)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 20_000 {
				now, _ := current.Load(0)
				now.(*Limit).Take(key(1), 1, 0)
			}
		})
	}
	changes := uint32(0)
	for range 100 {
		changes++
		if l, err = l.Reconfigure(specs[changes%2], 0); err != nil {
			t.Fatal(err)
		}
		current.Store(0, l)
		runtime.Gosched()
	}
	wg.Wait()
	if got := taken(l, key(1), 0); got < 60_000 || got > 60_000+changes+60_000/20 {
		t.Fatalf("%d used, want 60000 and at most a rounding for each change", got)
	}
}

// A process that replaces another goes on with its buckets, on a clock of its own.
func TestHandover(t *testing.T) {
	windows := []Window{
		{Limit: 100, Period: time.Minute}, {Algorithm: SlidingWindow, Limit: 200, Period: time.Hour},
		{Algorithm: FixedWindow, Limit: 5000, Period: 24 * time.Hour}, {Algorithm: LeakyBucket, Limit: 100, Period: time.Second, MaxWait: time.Minute},
	}
	const then, now = 1_000_000 * sec, 7200 * sec
	seed := NewSeed()
	same, err := ParseSeed(seed.AppendTo(nil))
	if err != nil || same.Key([]byte("a")) != seed.Key([]byte("a")) || same.Key([]byte("a")) == NewSeed().Key([]byte("a")) {
		t.Fatal("a seed that is handed on must make the same keys, and another one others")
	}
	if _, err := ParseSeed(make([]byte, 15)); err == nil {
		t.Fatal("a short seed was read")
	}
	old, young := mustLimit(t, 1000, windows...), mustLimit(t, 2000, windows...)
	for i := range 300 {
		old.Take(key(i), uint32(i%80), then)
	}
	young.Take(key(7), 50, now)
	b := old.Append([]byte("before"), then)
	n, err := young.Import(b[len("before"):], now)
	if err != nil || n != 300-4-1 { // without those of whom nothing was taken, and the one that is known
		t.Fatal(n, err)
	}
	for i := range 300 {
		want := uint32(i % 80)
		if i == 7 {
			want = 50
		}
		s := young.memory.find(key(i))
		for w := range windows {
			if want == 0 && s.words == nil {
				continue
			}
			used, _ := young.rules[w].used(young.state(s.state(w).Load(), s, w, now), now)
			if used != int64(want)*young.rules[w].unit() {
				t.Fatalf("key %d window %d: %d used, want %d", i, w, used, want)
			}
		}
	}
	// Another rate in the new process.
	faster := mustLimit(t, 1000, Window{Limit: 1000, Period: time.Minute})
	if n, err := faster.Import(b[6:], now); err != nil || n != 300-4 {
		t.Fatal(n, err)
	}
	if got := taken(faster, key(79), now); got != 79 {
		t.Fatalf("%d used, want 79", got)
	}
}

// What is cut, longer, or wrong in any record is refused as a whole.
func TestHandoverRefusals(t *testing.T) {
	l := mustLimit(t, 100, Window{Limit: 10, Period: time.Second})
	for i := range 5 {
		l.Take(key(i), 3, 0)
	}
	b := l.Append(nil, 0)
	f := func(name string, b []byte) {
		t.Helper()
		n := mustLimit(t, 100, Window{Limit: 10, Period: time.Second})
		if keys, err := n.Import(b, 0); err == nil || keys != 0 || n.Stats().Used != 0 {
			t.Errorf("%s: %d keys, %v, %d slots", name, keys, err, n.Stats().Used)
		}
	}
	for i := range b {
		f("cut", b[:i])
	}
	f("longer", append(bytes.Clone(b), 0))
	f("one more", append(bytes.Clone(b), b[len(b)-32:]...))
	change := func(at int, v byte) []byte {
		c := bytes.Clone(b)
		c[at] = v
		return c
	}
	f("magic", change(0, 'x'))
	f("windows", change(4, 0))
	f("windows", change(4, 200))
	f("algorithm", change(5, byte(inFlight)))
	f("algorithm", change(5, 77))
	f("negative", change(len(b)-1, 0x80))
	huge := bytes.Clone(b)
	binary.LittleEndian.PutUint64(huge[handoverHead+windowRecord:], math.MaxUint64)
	f("keys", huge)
}

// Import never panics, and what it takes over can be handed on and taken of.
func FuzzImport(f *testing.F) {
	l := mustLimit(f, 100, Window{Limit: 10, Period: time.Second}, Window{Algorithm: SlidingWindow, Limit: 100, Period: time.Hour})
	for i := range 3 {
		l.Take(key(i), 3, 5*sec)
	}
	f.Add(l.Append(nil, 5*sec), int64(0))
	one := mustLimit(f, 100, Window{Algorithm: LeakyBucket, Limit: 10, Period: time.Second, MaxWait: time.Minute})
	one.Take(key(1), 3, 0)
	f.Add(one.Append(nil, 0), int64(-1))
	f.Add([]byte(handoverMagic), int64(1)<<62)
	f.Fuzz(func(t *testing.T, b []byte, now int64) {
		if now > 1<<62 || now < -1<<62 {
			return
		}
		l := mustLimit(t, 100, Window{Limit: 10, Period: time.Second}, Window{Algorithm: FixedWindow, Limit: 100, Period: time.Hour})
		n, err := l.Import(b, now)
		if err != nil {
			if n != 0 || l.Stats().Used != 0 {
				t.Fatal("a part of it was taken over")
			}
			return
		}
		again := mustLimit(t, 100, Window{Limit: 10, Period: time.Second}, Window{Algorithm: FixedWindow, Limit: 100, Period: time.Hour})
		if _, err := again.Import(l.Append(nil, now), now); err != nil {
			t.Fatal(err)
		}
		l.each(func(s slot) {
			k, _ := s.key()
			a, b := l.Peek(k, 1, now), again.Peek(k, 1, now)
			if a != b || a.Reset < 0 || a.RetryAfter < 0 || a.Remaining > 10 {
				t.Fatalf("%+v, and after another hand-over %+v", a, b)
			}
		})
	})
}
