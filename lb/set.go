package lb

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// maxEndpoints bounds a set: tables name endpoints by 16 bits.
const maxEndpoints = 1<<16 - 1

// Set is the endpoints of a pool, or of a subset of it, with what each is to get at one instant. It is immutable and shared by
// the pickers of all loops; it may take milliseconds to build, which is not done on a loop.
type Set struct {
	spec    Spec
	entries []entry // those that have a share
	reserve []entry // available, without a share: what retries go to when all others were tried. The nearest first
	total   float64 // weight of all entries
	equal   bool    // the entries have one weight
	panic   bool
	due     int64
	index   map[*Load]int32 // entries, for rotations that go on
	alias   alias           // by weight; only for algorithms that draw, and unequal weights
	slots   []uint16        // entry of each slot: the points of a ring, or maglev's table
	ring    ring            // ring_hash: where the points are
}

// entry is an endpoint as a picker sees it.
type entry struct {
	endpoint *Endpoint
	load     *Load
	weight   float64 // above zero; what priorities, zones and slow start make of it
	hash     uint64  // of the address
	relief   float32 // mean weight of all entries divided by this one's
	rank     int32   // in the reserve: lower goes first
}

// candidate is an endpoint while a set is built.
type candidate struct {
	endpoint  *Endpoint
	weight    float64
	available bool
	abroad    bool // in a zone that is not the gateway's own, where zones matter
}

// NewSet compiles endpoints, 65,535 at most, at the instant now in nanoseconds. Each must have a Load, which from then on keeps
// the latency if the algorithm needs it, and the spec must pass Check. Endpoints that drain, are disabled or unchecked, or have
// weight 0 are not in the set; nor are unhealthy ones, but for panic. It keeps the endpoints, not the slice. An address should be
// there once: hashing does not tell two of the same apart.
func NewSet(spec *Spec, endpoints []*Endpoint, now int64) *Set {
	if err := spec.Check(); err != nil {
		panic("BUG: lb: " + err.Error())
	}
	if len(endpoints) > maxEndpoints {
		panic("BUG: lb: a set of " + strconv.Itoa(len(endpoints)) + " endpoints")
	}
	s := &Set{spec: *spec}
	levels := s.levels(endpoints, now)
	spread(levels, spec.Overprovide, spec.Panic)
	whole := 0.0
	for i := range levels {
		if total := levels[i].weigh(&s.spec); levels[i].share > 0 {
			whole += total
		}
	}
	for i := range levels {
		s.add(&levels[i], whole)
		s.panic = s.panic || levels[i].panic
	}
	s.compile()
	return s
}

// levels sorts endpoints into priorities and notes when slow start makes another set due.
func (s *Set) levels(endpoints []*Endpoint, now int64) (levels []level) {
	place := map[int]int{}
	for _, e := range endpoints {
		flags, weight := e.Load.Flags(), weightOf(e)
		e.Load.configure(&s.spec)
		if flags&^unhealthy != 0 || weight <= 0 {
			continue
		}
		c := candidate{endpoint: e, weight: float64(weight), available: flags == 0}
		if c.available && !s.spec.Algorithm.Hashing() {
			age := now - e.Load.since.Load()
			c.weight *= s.spec.SlowStart.factor(age)
			if due := s.spec.SlowStart.due(now, age); due != 0 {
				s.due = due
			}
		}
		at, ok := place[e.Priority]
		if !ok {
			at = len(levels)
			place[e.Priority] = at
			levels = append(levels, level{priority: e.Priority})
		}
		levels[at].members = append(levels[at].members, c)
		if c.available {
			levels[at].available++
		}
	}
	slices.SortFunc(levels, func(a, b level) int { return cmp.Compare(a.priority, b.priority) })
	return levels
}

// weigh leaves in l the members that may be used, with their weights shifted between zones, and gives the sum of these.
func (l *level) weigh(spec *Spec) (total float64) {
	if !l.panic {
		l.members = slices.DeleteFunc(l.members, func(c candidate) bool { return !c.available })
		localize(l.members, spec.Zone, spec.ZoneMinimum)
	}
	for i := range l.members {
		total += l.members[i].weight
	}
	return total
}

// add takes the members of l into s. whole is the weight of all levels that have a share. A level's weights are scaled to its
// share of that: so the mean weight stays what it was, and with it the points of a ring.
func (s *Set) add(l *level, whole float64) {
	total := 0.0
	for _, c := range l.members {
		total += c.weight
	}
	for _, c := range l.members {
		e := entry{endpoint: c.endpoint, load: c.endpoint.Load, hash: HashString(c.endpoint.Address), rank: 2 * int32(l.priority)}
		if c.abroad {
			e.rank++
		}
		switch {
		case c.weight > 0 && l.share > 0:
			e.weight = c.weight * l.share * whole / total
			s.entries = append(s.entries, e)
		default:
			s.reserve = append(s.reserve, e)
		}
	}
}

// compile makes what the algorithm looks at.
func (s *Set) compile() {
	slices.SortStableFunc(s.reserve, func(a, b entry) int { return cmp.Compare(a.rank, b.rank) })
	if s.spec.Algorithm.Hashing() { // whatever the order in which the endpoints are known to a gateway
		slices.SortFunc(s.entries, func(a, b entry) int { return strings.Compare(a.endpoint.Address, b.endpoint.Address) })
	}
	s.equal = true
	for i := range s.entries {
		s.total += s.entries[i].weight
		s.equal = s.equal && closeTo(s.entries[i].weight, s.entries[0].weight)
	}
	if len(s.entries) == 0 {
		return
	}
	mean := s.total / float64(len(s.entries))
	for i := range s.entries {
		s.entries[i].relief = float32(mean / s.entries[i].weight)
	}
	switch s.spec.Algorithm {
	case RoundRobin, LeastRequest:
		s.index = make(map[*Load]int32, len(s.entries))
		for i := range s.entries {
			s.index[s.entries[i].load] = int32(i)
		}
	case PeakEWMA, Random:
		if !s.equal {
			s.alias = newAlias(s.entries)
		}
	case RingHash:
		s.ring, s.slots = newRing(s.entries)
	case Maglev, SourceIP:
		s.slots = newTable(s.entries)
	}
}

func closeTo(a, b float64) bool { return a-b < 1e-9*b && b-a < 1e-9*b }

// Len is the number of endpoints that have a share.
func (s *Set) Len() int { return len(s.entries) }

// Share is the part of the traffic that the i-th endpoint, of Len, is meant to get, and the endpoint.
func (s *Set) Share(i int) (*Endpoint, float64) {
	return s.entries[i].endpoint, s.entries[i].weight / s.total
}

// Usable are the endpoints that a picker may give: those that have a share, then the reserve, the nearest first.
func (s *Set) Usable() []*Endpoint {
	list := make([]*Endpoint, 0, len(s.entries)+len(s.reserve))
	for i := range s.entries {
		list = append(list, s.entries[i].endpoint)
	}
	for i := range s.reserve {
		list = append(list, s.reserve[i].endpoint)
	}
	return list
}

// Panic says that a priority that has traffic disregards health.
func (s *Set) Panic() bool { return s.panic }

// Due is the instant, in nanoseconds, at which slow start needs another set; 0: there is no slow start.
func (s *Set) Due() int64 { return s.due }
