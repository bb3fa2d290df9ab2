package observe

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind is what ids are given to.
type Kind uint8

const (
	Listeners Kind = iota
	Routes
	Pools
	Endpoints
	kinds
)

// None is the id of what has no name: a request that met no route, an endpoint that nobody registered.
const None = 0

const (
	// maxIDs bounds the ids of a kind. What comes after shares None.
	maxIDs = 1 << 20
	// grace is how long the counters of a name that is gone are kept: it may come back, and exchanges that it began go on.
	grace = 10 * time.Minute
)

// noName is the label of None.
const noName = "none"

// Registry gives each name a small number, the same as long as the name is in force, over reloads. It may be used from
// anywhere but a loop.
type Registry struct {
	mu     sync.Mutex
	names  [kinds]names
	forget func(k Kind, ids []int) // clears the counters of ids
	now    func() time.Time
	start  time.Time
}

// names are those of one kind.
type names struct {
	ids     map[name]int
	entries []entry // by id
	clear   []int   // ids whose counters are being cleared: free after the next Keep
	free    []int
}

// name is a name as its labels show it: that of an endpoint is its pool's and its address, with a NUL between, which neither has. It is one
// string because there may be 100,000 routes. "" is none.
type name string

func endpointName(pool, address string) name { return name(pool + "\x00" + address) }

// endpoint cuts the name of an endpoint.
func (n name) endpoint() (pool, address string) {
	pool, address, _ = strings.Cut(string(n), "\x00")
	return pool, address
}

type entry struct {
	name  name
	gone  time.Duration // when it was retired, after Registry.start
	state idState
}

type idState uint8

const (
	idFree idState = iota
	idLive
	idRetired
)

func newRegistry(forget func(Kind, []int)) *Registry {
	r := &Registry{forget: forget, now: time.Now, start: time.Now()}
	for k := range r.names {
		first := entry{name: noName, state: idLive}
		if Kind(k) == Endpoints {
			first.name = endpointName(noName, noName)
		}
		r.names[k] = names{ids: map[name]int{first.name: None}, entries: []entry{first}}
	}
	return r
}

// Listener is the id of a listener's counters.
func (r *Registry) Listener(listener string) int { return r.id(Listeners, name(listener)) }

// Route is the id of a route's counters.
func (r *Registry) Route(route string) int { return r.id(Routes, name(route)) }

// Pool is the id of an upstream's counters.
func (r *Registry) Pool(pool string) int { return r.id(Pools, name(pool)) }

// Endpoint is the id of an endpoint's counters.
func (r *Registry) Endpoint(pool, address string) int {
	return r.id(Endpoints, endpointName(pool, address))
}

func (r *Registry) id(k Kind, n name) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	ns := &r.names[k]
	if id, ok := ns.ids[n]; ok {
		ns.entries[id].state = idLive
		return id
	}
	return r.give(k, n)
}

// give finds a number for a name that has none. The caller holds r.mu.
func (r *Registry) give(k Kind, n name) int {
	ns := &r.names[k]
	id := len(ns.entries)
	switch last := len(ns.free) - 1; {
	case last >= 0:
		id, ns.free = ns.free[last], ns.free[:last]
	case id >= maxIDs:
		return None
	default:
		ns.entries = append(ns.entries, entry{})
	}
	ns.ids[n] = id
	ns.entries[id] = entry{name: n, state: idLive}
	return id
}

// Keep says which ids of a kind are in force, all of them: the others are not shown any more, and given to other names
// after a while. Call it when a configuration has been put in force, or endpoints have been resolved anew.
func (r *Registry) Keep(k Kind, ids []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ns := &r.names[k]
	keep := make([]bool, len(ns.entries))
	keep[None] = true
	for _, id := range ids {
		if uint(id) < uint(len(keep)) {
			keep[id] = true
		}
	}
	// What was cleared at the last Keep has been so on every loop by now, or will be before its next exchange.
	ns.free = append(ns.free, ns.clear...)
	ns.clear = nil
	now := r.now().Sub(r.start)
	for id := range ns.entries {
		switch e := &ns.entries[id]; {
		case e.state == idFree:
		case keep[id]:
			e.state = idLive
		case e.state == idLive:
			e.state, e.gone = idRetired, now
		case now-e.gone >= grace:
			delete(ns.ids, e.name)
			*e = entry{}
			ns.clear = append(ns.clear, id)
		}
	}
	if len(ns.clear) > 0 {
		r.forget(k, ns.clear)
	}
}

// Lookup is the id of a route in force.
func (r *Registry) lookupRoute(route string) (id int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ns := &r.names[Routes]
	id, ok = ns.ids[name(route)]
	return id, ok && id != None && ns.entries[id].state == idLive
}

// live gives the names of a kind that are in force by their ids; the others are empty.
func (r *Registry) live(k Kind) []name {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]name, len(r.names[k].entries))
	for id, e := range r.names[k].entries {
		if e.state == idLive {
			out[id] = e.name
		}
	}
	return out
}

// inherited is the id of a name that another process has counted under. One that nobody here has named is not in force until
// somebody does.
func (r *Registry) inherited(k Kind, parts ...string) int {
	var n name
	switch {
	case slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, "\x00") }):
		return None
	case k == Endpoints && len(parts) == 2:
		n = endpointName(parts[0], parts[1])
	case k != Endpoints && len(parts) == 1:
		n = name(parts[0])
	default:
		return None
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.names[k].ids[n]; ok {
		return id
	}
	id := r.give(k, n)
	if id != None {
		r.names[k].entries[id].state, r.names[k].entries[id].gone = idRetired, r.now().Sub(r.start)
	}
	return id
}
