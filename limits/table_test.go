package limits

import (
	"math/rand/v2"
	"runtime"
	"strings"
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

// Two take a new key at the same moment, while slots before its own become free and are taken again: it ends with one
// slot, and exactly its limit is admitted.
func TestTableClaimAmongFree(t *testing.T) {
	const rounds, over, limit = 5000, 1 << 32, 3
	const most = 2 * time.Second // where not all are run at once, a round takes milliseconds
	l := mustLimit(t, MinCapacity, Window{Limit: limit, Period: time.Hour})
	neighbour := func(n int) Key { return Key{Hi: uint64(n+1) << tagShift, Lo: uint64(n) << 40} } // all begin at slot 0
	var round, admitted, done, stop atomic.Int64
	var wg sync.WaitGroup
	wait := func(v *atomic.Int64, least int64) {
		for spin := 0; v.Load() < least; spin++ {
			if spin > 2000 {
				runtime.Gosched()
			}
		}
	}
	take := func(r int64) {
		for range limit {
			if l.Take(neighbour(int(10+r)), 1, 0).Allowed {
				admitted.Add(1)
			}
		}
		done.Add(1)
	}
	wg.Go(func() {
		for r := int64(0); ; r++ {
			if wait(&round, r+1); round.Load() == over {
				return
			}
			take(r)
		}
	})
	wg.Go(func() {
		for n := 0; stop.Load() == 0; n++ {
			l.Take(neighbour(n%3), 1, 0)
			l.Forget(neighbour((n + 1) % 3))
			if n%16 == 0 {
				runtime.Gosched()
			}
		}
	})
	start := time.Now()
	for r := int64(0); r < rounds && (r%16 != 0 || time.Since(start) < most); r++ {
		admitted.Store(0)
		round.Store(r + 1)
		take(r)
		wait(&done, 2*(r+1))
		k := neighbour(int(10 + r))
		if n, s := admitted.Load(), slotsOf(l, k); (n != limit || s != 1) && !t.Failed() {
			t.Errorf("round %d: %d admitted, %d slots, %+v", r, n, s, l.Stats())
		}
		for l.Forget(k) {
		}
	}
	stop.Store(1)
	round.Store(over)
	wg.Wait()
}

// meanwhile is a balance that lets something happen while a slot is chosen, and then gives that one away.
type meanwhile struct{ happen func() }

func (m meanwhile) weight(slot, int64) int64 {
	m.happen()
	return 0
}

// Another loop has claimed the key, in another slot, after we did not find it and before we claim: its slot stands, and ours
// is given up.
func TestTableClaimMeanwhile(t *testing.T) {
	l := mustLimit(t, 100, Window{Limit: 5, Period: time.Hour})
	k := key(1)
	l.Take(Key{k.Hi ^ 1<<tagShift, k.Lo}, 1, 0) // holds the first slot of the neighbourhood
	s := l.memory.claim(k, 0, meanwhile{func() { l.Take(k, 2, 0) }})
	if slotsOf(l, k) != 1 || !s.ours() || taken(l, k, 0) != 2 {
		t.Fatalf("%d slots, %d taken", slotsOf(l, k), taken(l, k, 0))
	}
}

// A slot whose owner has not taken yet is not free: its first take must not be lost.
func TestTableClaimedNotTaken(t *testing.T) {
	l := mustLimit(t, MinCapacity, Window{Limit: 5, Period: time.Hour})
	mine := l.memory.claim(key(0), 0, l)
	for i := range 1000 {
		l.Take(key(i+1), 1, 0)
	}
	if !mine.ours() {
		t.Fatal("somebody else has it")
	}
}

// Claims in one neighbourhood, of which each is held up at the worst moment, are joined: whatever the order, one slot stays.
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

// A key of several parts is that of these parts in this order, and of no other split of the same bytes.
func TestSeedKeys(t *testing.T) {
	s := NewSeed()
	seen := map[Key]string{}
	for _, parts := range [][]string{{"ab", "c"}, {"a", "bc"}, {"abc"}, {"c", "ab"}, {"ab", "c", ""}, {"", "ab", "c"}, {"ab"}, {"c"}, {""}} {
		k := s.Key([]byte(parts[0]))
		for _, p := range parts[1:] {
			k = s.With(k, []byte(p))
		}
		name := strings.Join(parts, "|")
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		seen[k] = name
	}
}
