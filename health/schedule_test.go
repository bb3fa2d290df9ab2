package health

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// drive runs a schedule for so long, with probes that last `lasts`. begun is told each start.
func drive(t *testing.T, s *Schedule, from, to int64, lasts time.Duration, interval func(p *Probe) (interval, jitter time.Duration), begun func(p *Probe, now int64)) {
	t.Helper()
	type running struct {
		p   *Probe
		end int64
	}
	var queue []running // in order of end, for all last equally long
	for now := from; now < to; {
		p, at := s.Next(now)
		if p != nil {
			begun(p, now)
			queue = append(queue, running{p, now + int64(lasts)})
			continue
		}
		if len(queue) > 0 && queue[0].end <= at {
			now = max(now, queue[0].end)
			i, j := interval(queue[0].p)
			s.Done(queue[0].p, i, j, now)
			queue = queue[1:]
			continue
		}
		if at == math.MaxInt64 {
			t.Fatal("nothing is due and nothing runs")
		}
		now = at
	}
	for _, r := range queue {
		i, j := interval(r.p)
		s.Done(r.p, i, j, to)
	}
}

// Probes of a thousand endpoints come evenly, from the first second, and stay so when the interval grows from 1s to 10s.
func TestScheduleSpreadsEvenly(t *testing.T) {
	const endpoints, interval = 1000, 10 * time.Second
	s, _ := NewSchedule(100, rand.NewPCG(1, 2))
	for i := range endpoints {
		if _, err := s.Add(i, time.Second, 0); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[int]int{}
	var tenths [300]int // of seconds, over 30s
	drive(t, s, 0, int64(30*time.Second), time.Millisecond, func(p *Probe) (time.Duration, time.Duration) {
		if seen[p.ID] < 3 {
			return time.Second, 0 // the start
		}
		return interval, interval / 10
	}, func(p *Probe, now int64) {
		seen[p.ID]++
		tenths[now/int64(100*time.Millisecond)]++
	})
	for i, n := range tenths[:20] {
		if n < 90 || n > 110 {
			t.Errorf("start, tenth %d: %d probes, want about 100", i, n)
		}
	}
	// From the fourth second on every endpoint goes by 10s.
	for i := 50; i < 300; i += 10 {
		n := 0
		for _, tenth := range tenths[i : i+10] {
			n += tenth
		}
		if n < 90 || n > 110 {
			t.Errorf("second %d: %d probes, want about 100", i/10, n)
		}
	}
	for id, n := range seen {
		if n < 5 || n > 6 {
			t.Errorf("endpoint %d was probed %d times in 30s", id, n)
		}
	}
	if len(seen) != endpoints {
		t.Errorf("%d endpoints were probed", len(seen))
	}
}

// Few endpoints are spread as well: of any number, no two are closer than a third of an even share.
func TestSchedulePhases(t *testing.T) {
	for n := 2; n <= 200; n++ {
		s, _ := NewSchedule(1, rand.NewPCG(uint64(n), 0))
		for i := range n {
			s.Add(i, time.Second, 0)
		}
		last := int64(-1e9)
		for range n {
			p, now := s.Next(int64(time.Hour))
			if gap := p.due - last; gap < int64(time.Second)/int64(3*n) {
				t.Fatalf("%d endpoints: a gap of %v", n, time.Duration(gap))
			}
			last = p.due
			s.Done(p, time.Hour, 0, now)
		}
	}
}

// Slow probes never run more than so many at once; then all endpoints still get their turns.
func TestScheduleBoundsProbes(t *testing.T) {
	const most, endpoints = 7, 100
	s, _ := NewSchedule(most, rand.NewPCG(1, 2))
	for i := range endpoints {
		s.Add(i, time.Second, 0)
	}
	seen, peak := map[int]int{}, 0
	drive(t, s, 0, int64(100*time.Second), time.Second, func(*Probe) (time.Duration, time.Duration) { return time.Second, 0 },
		func(p *Probe, now int64) {
			seen[p.ID]++
			peak = max(peak, s.Running())
			if p.due > now {
				t.Fatalf("probe %d began %v early", p.ID, time.Duration(p.due-now))
			}
		})
	if peak != most {
		t.Errorf("%d ran at once, want %d", peak, most)
	}
	// 100 s of 7 places are 700 probes.
	for i := range endpoints {
		if seen[i] < 6 || seen[i] > 8 {
			t.Errorf("endpoint %d had %d probes, want about 7", i, seen[i])
		}
	}
}

// The time between two probes of an endpoint is its interval, give or take the jitter; late ones are not caught up.
func TestScheduleKeepsIntervals(t *testing.T) {
	s, _ := NewSchedule(10, rand.NewPCG(1, 2))
	interval, jitter := time.Second, 100*time.Millisecond
	for i := range 10 {
		s.Add(i, interval, 0)
	}
	last := map[int]int64{}
	drive(t, s, 0, int64(20*time.Second), time.Millisecond, func(*Probe) (time.Duration, time.Duration) { return interval, jitter },
		func(p *Probe, now int64) {
			if before, ok := last[p.ID]; ok {
				if gap := time.Duration(now - before); gap < interval-jitter || gap > interval+jitter {
					t.Errorf("endpoint %d waited %v", p.ID, gap)
				}
			}
			last[p.ID] = now
		})
	p, now := s.Next(int64(60 * time.Second)) // everything is 40 s late
	s.Done(p, interval, 0, now)
	if p.due <= now || p.due > now+int64(interval) {
		t.Errorf("after a long pause the next probe is due in %v", time.Duration(p.due-now))
	}
}

func TestScheduleRemove(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s, _ := NewSchedule(5, r)
	live, running := map[*Probe]bool{}, map[*Probe]bool{}
	now := int64(0)
	for range 20_000 {
		now += r.Int64N(int64(10 * time.Millisecond))
		switch r.IntN(4) {
		case 0:
			if p, err := s.Add(0, time.Second, now); err == nil {
				live[p] = true
			}
		case 1:
			for p := range live {
				s.Remove(p)
				s.Remove(p) // a second time is nothing
				delete(live, p)
				break
			}
		case 2:
			if p, at := s.Next(now); p != nil {
				if !live[p] || running[p] {
					t.Fatal("a probe was begun that is removed or runs")
				}
				running[p] = true
			} else if at <= now {
				t.Fatal("asked to come back at once")
			}
		case 3:
			for p := range running {
				delete(running, p)
				s.Done(p, time.Second, time.Millisecond, now)
				break
			}
		}
		waiting := 0
		for p := range live {
			if !running[p] {
				waiting++
			}
		}
		if s.Len() != waiting+len(running) || s.Running() != len(running) {
			t.Fatalf("%d waiting and %d running, want %d and %d", s.Len()-s.Running(), s.Running(), waiting, len(running))
		}
	}
}

func TestScheduleIsBounded(t *testing.T) {
	s, _ := NewSchedule(1, dice(0))
	for i := range MaxProbes {
		if _, err := s.Add(i, time.Second, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Add(0, time.Second, 0); err == nil {
		t.Error("one too many was taken")
	}
}

func TestScheduleDoneTwice(t *testing.T) {
	s, _ := NewSchedule(1, dice(0))
	p, _ := s.Add(0, time.Second, 0)
	defer func() {
		if recover() == nil {
			t.Error("a probe that did not run was done")
		}
	}()
	s.Done(p, time.Second, 0, 0)
}
