package health

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// MaxProbes bounds the endpoints of a Schedule.
const MaxProbes = 100_000

// golden is the fractional part of the golden ratio in 64 bits. Multiples of it, modulo one, are spread evenly however many
// there are (The Art of Computer Programming, volume 3, section 6.4).
const golden = 0x9e3779b97f4a7c15

// Schedule says which endpoint is checked next. Its owner asks Next, runs the probe, and says Done; all take O(log n).
//
// Each endpoint has a phase, a share of an interval, and its probes are due that share after each multiple of the interval.
// Phases are spread evenly and begin at random, so that the probes of a thousand endpoints come one by one from the start,
// stay so whatever interval each goes by, and those of several gateways do not meet. Late probes are skipped, not caught up.
type Schedule struct {
	random  rand.Source
	most    int
	running int
	phase   uint64 // of the next endpoint; 2^64 is one interval
	due     probeHeap
}

// Probe is an endpoint's entry in a Schedule. It belongs to the schedule's owner.
type Probe struct {
	ID int // the caller's

	phase   uint64
	base    int64 // when it is due, without jitter
	due     int64
	index   int // in the heap; -1 while it runs or is removed
	running bool
	removed bool
}

// NewSchedule gives an empty schedule of at most `most` probes at once, 1..10000. The error is a *SpecError.
func NewSchedule(most int, random rand.Source) (*Schedule, error) {
	var r ranges
	r.integer("at_once", most, 1, 10_000)
	if r.err != nil {
		return nil, r.err
	}
	return &Schedule{random: random, most: most, phase: random.Uint64()}, nil
}

// Add enters an endpoint. Its first probe is due within interval.
func (s *Schedule) Add(id int, interval time.Duration, now int64) (*Probe, error) {
	if s.Len() >= MaxProbes {
		return nil, fmt.Errorf("cannot schedule probe: there are %d already", MaxProbes)
	}
	p := &Probe{ID: id, phase: s.phase, base: now - 1}
	s.phase += golden
	s.enqueue(p, interval, 0, now-1)
	return p, nil
}

// Len is the number of endpoints, running probes included.
func (s *Schedule) Len() int { return len(s.due) + s.running }

// Running is the number of probes that were begun and are not done.
func (s *Schedule) Running() int { return s.running }

// Next begins the probe that is due longest. If none may begin it gives nil and when to ask again: math.MaxInt64 if a probe
// must be done first, or there is none.
func (s *Schedule) Next(now int64) (p *Probe, at int64) {
	if len(s.due) == 0 || s.running >= s.most {
		return nil, math.MaxInt64
	}
	if first := s.due[0]; first.due > now {
		return nil, first.due
	}
	p = heap.Pop(&s.due).(*Probe)
	p.running = true
	s.running++
	return p, now
}

// Done ends a probe that Next began. The next one is due at its phase of interval, up to jitter later.
func (s *Schedule) Done(p *Probe, interval, jitter time.Duration, now int64) {
	if !p.running {
		panic("BUG: health: a probe that does not run is done")
	}
	p.running = false
	s.running--
	if !p.removed {
		s.enqueue(p, interval, jitter, now)
	}
}

// Remove takes an endpoint out. A probe of it that runs still ends with Done.
func (s *Schedule) Remove(p *Probe) {
	if !p.removed && !p.running {
		heap.Remove(&s.due, p.index)
	}
	p.removed = true
}

// enqueue queues p for the first time of its phase after both now and its last one.
func (s *Schedule) enqueue(p *Probe, interval, jitter time.Duration, now int64) {
	i := int64(max(interval, 1))
	offset := int64(float64(p.phase) / (1 << 64) * float64(i))
	after := max(now, p.base)
	p.base = floor(after-offset, i) + offset + i
	p.due = p.base + upTo(s.random, jitter)
	heap.Push(&s.due, p)
}

// floor gives the greatest multiple of i that is not above n.
func floor(n, i int64) int64 {
	if m := n % i; m < 0 {
		return n - m - i
	} else {
		return n - m
	}
}

type probeHeap []*Probe

func (h probeHeap) Len() int           { return len(h) }
func (h probeHeap) Less(a, b int) bool { return h[a].due < h[b].due }
func (h probeHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].index, h[b].index = a, b
}

// Push and Pop are container/heap's.
func (h *probeHeap) Push(p any) {
	p.(*Probe).index = len(*h)
	*h = append(*h, p.(*Probe))
}

// Pop is container/heap's.
func (h *probeHeap) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	p.index = -1
	return p
}
