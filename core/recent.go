package core

// Recent holds what one loop has learnt of late, by keys that are compared whole, such as tokens. It has two generations, so that what is
// used stays and what is not goes, without a list: when the young are full they become the old ones, and those go. The zero value
// holds nothing; only one loop touches it.
type Recent[V any] struct {
	Most       int // entries of a generation; 0: as many as its bytes allow
	young, old map[string]recent[V]
	bytes      int // of the young
}

type recent[V any] struct {
	key   string
	value V
	bytes int
}

const (
	// RecentBytes bounds a generation.
	RecentBytes = 4 << 20
	// recentEntry is about what an entry takes besides its key and what it holds.
	recentEntry = 256
)

// Find gives what was put under the key, and says whether there is anything. It allocates nothing.
func (r *Recent[V]) Find(key []byte) (v V, ok bool) {
	e, ok := r.young[string(key)]
	if !ok {
		if e, ok = r.old[string(key)]; !ok {
			return v, false
		}
		delete(r.old, e.key)
		r.put(e)
	}
	return e.value, true
}

// Put keeps v, which takes so many bytes beside the key.
func (r *Recent[V]) Put(key string, v V, bytes int) {
	r.put(recent[V]{key, v, len(key) + bytes + recentEntry})
}

func (r *Recent[V]) put(e recent[V]) {
	if r.bytes+e.bytes > RecentBytes || r.Most > 0 && len(r.young) >= r.Most {
		r.old, r.young, r.bytes = r.young, nil, 0
	}
	if r.young == nil {
		r.young = map[string]recent[V]{}
	}
	r.bytes += e.bytes - r.young[e.key].bytes
	r.young[e.key] = e
}

// Clear forgets everything.
func (r *Recent[V]) Clear() { r.young, r.old, r.bytes = nil, nil, 0 }

// Len is the number of entries.
func (r *Recent[V]) Len() int { return len(r.young) + len(r.old) }
