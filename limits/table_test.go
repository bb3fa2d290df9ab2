package limits

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustLimit(t testing.TB, capacity int, windows ...Window) *Limit {
	t.Helper()
	l, err := NewLimit(Spec{Windows: windows, Capacity: capacity})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// key is the n-th of many keys, spread as a Seed spreads them.
func key(n int) Key {
	r := rand.New(rand.NewPCG(uint64(n), 42))
	return Key{r.Uint64(), r.Uint64()}
}

// taken is how much of k's first window is used, rounded up.
func taken(l *Limit, k Key, now int64) uint32 {
	s, r := l.memory.find(k), &l.rules[0]
	if s.words == nil {
		return 0
	}
	used, before := r.used(l.state(s.state(0).Load(), s, 0, now), now)
	return uint32((used + before + r.unit() - 1) / r.unit())
}

// slotsOf counts the slots of a key.
func slotsOf(l *Limit, k Key) (n int) {
	l.each(func(s slot) {
		if own, ok := s.key(); ok && own.Hi == k.Hi&^31 && own.Lo == k.Lo&^15 {
			n++
		}
	})
	return n
}

// Keys keep apart, even if they agree in all that a tag holds, or in all but one of the bits that are compared.
func TestTableKeysKeepApart(t *testing.T) {
	for _, windows := range []int{1, 4} {
		var w []Window
		for range windows {
			w = append(w, Window{Limit: 100, Period: time.Hour})
		}
		l := mustLimit(t, 100, w...)
		a := key(1)
		near := []Key{a, {a.Hi, a.Lo ^ 1<<63}, {a.Hi, a.Lo ^ 1<<4}, {a.Hi ^ 1<<5, a.Lo}, {a.Hi ^ 1<<63, a.Lo}, {}, {0, 1 << 60}, {1 << 5, 1}}
		for i, k := range near {
			if d := l.Take(k, uint32(i+1), 0); !d.Allowed {
				t.Fatal("refused")
			}
		}
		for i, k := range near {
			want := uint32(i + 1)
			if i == 5 || i == 7 {
				want = 6 + 8 // the zero Key and {32, 1} are the only ones here whose compared bits are the same
			}
			if got := taken(l, k, 0); got != want {
				t.Errorf("key %d: %d taken, want %d", i, got, want)
			}
		}
	}
}

// As many keys as the capacity says are tracked at once, but for the few that the docs admit, in the memory that was said.
func TestTableCapacity(t *testing.T) {
	const capacity = 10_000
	for windows, most := range map[int]float64{1: 0.0005, 2: 0.0005, 3: 0.05, 4: 0.05} {
		w := []Window{}
		for range windows {
			w = append(w, Window{Limit: 2, Period: time.Hour})
		}
		l := mustLimit(t, capacity, w...)
		if b := l.Stats().Bytes; b > TableBytes(capacity) || b != capacity*KeyBytes {
			t.Fatalf("%d bytes, %d were promised", b, TableBytes(capacity))
		}
		for i := range capacity {
			l.Take(key(i), 1, 0)
		}
		lost := 0
		for i := range capacity {
			if taken(l, key(i), 0) != 1 {
				lost++
			}
		}
		s := l.Stats()
		if uint64(lost) != s.Evicted || float64(lost) > most*capacity || s.Untracked != 0 {
			t.Errorf("%d windows: %d keys lost, %+v", windows, lost, s)
		}
		if int(s.Used)+lost != capacity {
			t.Errorf("%d windows: %d slots used", windows, s.Used)
		}
	}
}

// A full table forgets those who have least to forget. One who is refused cannot make the gateway forget him by taking under
// thousands of other names.
func TestTableEviction(t *testing.T) {
	l := mustLimit(t, 1000, Window{Limit: 100, Period: time.Minute})
	culprit := key(0)
	for l.Take(culprit, 1, 0).Allowed {
	}
	for i := range 50_000 {
		if !l.Take(key(i+1), 1, int64(i)*100).Allowed {
			t.Fatal("a fresh key was refused")
		}
	}
	if l.Take(culprit, 1, 5*ms).Allowed {
		t.Fatal("the key that was refused was forgotten")
	}
	if s := l.Stats(); s.Evicted < 40_000 || s.Untracked != 0 || s.Used != uint64(s.Slots) {
		t.Fatalf("%+v", s)
	}
}

// Keys whose buckets are full again make room without being counted as evicted.
func TestTableExpiry(t *testing.T) {
	for _, w := range []Window{
		{Limit: 10, Period: time.Second}, {Algorithm: FixedWindow, Limit: 10, Period: time.Second},
		{Algorithm: SlidingWindow, Limit: 10, Period: time.Second}, {Algorithm: LeakyBucket, Limit: 10, Period: time.Second, MaxWait: time.Second},
	} {
		l := mustLimit(t, 1000, w)
		for i := range 20_000 {
			l.Take(key(i), 3, int64(i)*10*ms)
		}
		if s := l.Stats(); s.Evicted != 0 || s.Used > uint64(s.Slots) {
			t.Errorf("%v: %+v", w.Algorithm, s)
		}
		last := key(19_999)
		if got := taken(l, last, 19_999*10*ms); got != 3 {
			t.Errorf("%v: %d taken of the last key", w.Algorithm, got)
		}
	}
}

// A slot's new owner starts fresh, through more owners than the number of an owner can count.
func TestTableOwners(t *testing.T) {
	l := mustLimit(t, MinCapacity, Window{Limit: 5, Period: time.Second}, Window{Limit: 50, Period: time.Minute})
	for i := range 2000 {
		k, now := key(i), int64(i)*ms
		for j := range uint32(3) {
			if d := l.Take(k, 1, now); !d.Allowed || d.Remaining != 4-j {
				t.Fatalf("key %d: %+v", i, d)
			}
		}
	}
	if l.Stats().Evicted < 1500 {
		t.Fatalf("%+v: the slots had too few owners", l.Stats())
	}
}

func TestTableForget(t *testing.T) {
	l := mustLimit(t, 100, Window{Limit: 1, Period: time.Hour})
	if l.Forget(key(1)) {
		t.Fatal("an unknown key was known")
	}
	l.Take(key(1), 1, 0)
	l.Take(key(2), 1, 0)
	if !l.Forget(key(1)) || !l.Take(key(1), 1, 0).Allowed || l.Take(key(1), 1, 0).Allowed || l.Take(key(2), 1, 0).Allowed {
		t.Fatal("forget must make one key new, and only one")
	}
}

// All claim the same new keys at once: each key ends with one slot, and exactly its limit is admitted.
func TestTableClaimRace(t *testing.T) {
	const workers, rounds, limit = 4, 4000, 3
	l := mustLimit(t, 4*rounds, Window{Limit: limit, Period: time.Hour}) // so many that none is evicted
	var admitted [rounds]atomic.Int32
	var ready, wg sync.WaitGroup
	ready.Add(workers)
	for range workers {
		wg.Go(func() {
			ready.Done()
			ready.Wait()
			for r := range rounds {
				k := key(r)
				for range limit {
					if l.Take(k, 1, 0).Allowed {
						admitted[r].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	slots := map[Key]int{}
	l.each(func(s slot) {
		k, _ := s.key()
		slots[k]++
	})
	for r := range rounds {
		k := key(r)
		if n, s := admitted[r].Load(), slots[Key{k.Hi &^ 31, k.Lo &^ 15}]; n != limit || s != 1 {
			t.Fatalf("key %d: %d admitted, %d slots, %+v", r, n, s, l.Stats())
		}
	}
}

// Claims at one place, of which each is held up at the worst moment, are joined: whatever the order, one slot stays.
func TestTableTentative(t *testing.T) {
	k := key(7)
	for first := range uint64(3) {
		for second := range uint64(3) {
			if first == second {
				continue
			}
			l := mustLimit(t, 100, Window{Limit: 3, Period: time.Hour})
			m := l.memory
			at := m.first(k)
			tag := fingerprint(k)<<tagShift | tentative | 1
			for i := range uint64(3) { // all of the place before was in use once
				m.at(at + i)[0].Store(5)
			}
			m.at(at + first)[0].Store(tag)
			m.at(at + second)[0].Store(tag)
			one, two := m.confirm(k, at+first, tag), m.confirm(k, at+second, tag)
			if one == two || one != (first < second) {
				t.Fatalf("%d, %d: confirmed %v, %v", first, second, one, two)
			}
			// A third one, that comes while both hang, helps.
			m.at(at + first)[0].Store(tag)
			m.at(at + second)[0].Store(tag)
			if d := l.Take(k, 1, 0); !d.Allowed || slotsOf(l, k) != 1 || taken(l, k, 0) != 1 {
				t.Fatalf("%d, %d: %+v, %d slots", first, second, d, slotsOf(l, k))
			}
		}
	}
}

// Under a storm of keys and takes in a table that is far too small, nobody's tokens go to somebody else: a key that nobody
// evicts admits exactly its limit, and one that may be evicted never less.
func TestTableStorm(t *testing.T) {
	const workers, limit = 4, 50
	l := mustLimit(t, MinCapacity, Window{Limit: limit, Period: time.Hour}, Window{Algorithm: SlidingWindow, Limit: 1000, Period: time.Hour})
	heavy := key(1)
	var admitted, short atomic.Int64
	var wg sync.WaitGroup
	for range 3 { // with the most to forget, it is never evicted
		l.Take(heavy, 10, 0)
	}
	admitted.Store(30)
	for w := range workers {
		wg.Go(func() {
			for i := range 10_000 {
				if i%500 == 0 {
					if l.Take(heavy, 1, 0).Allowed {
						admitted.Add(1)
					}
					runtime.Gosched()
				}
				// Keys of its own: whatever the others do, this one has taken nothing before.
				if !l.Take(key(1000+i*workers+w), 1, 0).Allowed {
					short.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if admitted.Load() != limit || short.Load() != 0 || l.Stats().Evicted == 0 {
		t.Fatalf("%d of %d admitted, %d fresh keys refused, %+v", admitted.Load(), limit, short.Load(), l.Stats())
	}
}
