package limits

import (
	"cmp"
	"fmt"
	"slices"
)

const (
	// MaxTop is the most keys that a Top follows.
	MaxTop = 256
	// LabelBytes is how much of a key's text is kept.
	LabelBytes = 64
)

// Top finds the keys that are refused most often, in a fixed number of counters: the Space-Saving sketch of A. Metwally, D. Agrawal
// and A. El Abbadi, Efficient Computation of Frequent and Top-k Elements in Data Streams (ICDT 2005). Of n refusals a Top of m
// counters knows each key that has more than n/m, and its count is too high by at most TopKey.Error, which is at most n/m.
//
// A loop owns it, as all that counts; Merge joins those of the loops.
type Top struct {
	keys   []Key
	counts []TopKey // of the same indices: apart, so that a search reads keys only
	labels [][LabelBytes]byte
	total  uint64
}

// TopKey is one of the keys in a Top.
type TopKey struct {
	Key   Key
	Count uint64 // refusals, at most Error too many
	Error uint64
	Label string // only in what Keys gives
	size  uint8
}

// NewTop makes a Top that follows 1 to MaxTop keys.
func NewTop(keys int) (*Top, error) {
	if keys < 1 || keys > MaxTop {
		return nil, fmt.Errorf("cannot follow %d keys: 1 to %d are possible", keys, MaxTop)
	}
	return &Top{keys: make([]Key, 0, keys), counts: make([]TopKey, 0, keys), labels: make([][LabelBytes]byte, keys)}, nil
}

// Add counts a refusal. Of label, the text of the key as people know it, LabelBytes are kept when the key is new. It looks at all
// keys, and allocates nothing.
func (t *Top) Add(key Key, label []byte) {
	t.total++
	i := slices.Index(t.keys, key)
	switch {
	case i >= 0:
		t.counts[i].Count++
		return
	case len(t.keys) < cap(t.keys):
		i = len(t.keys)
		t.keys = append(t.keys, key)
		t.counts = append(t.counts, TopKey{Key: key, Count: 1})
	default: // the least gives way; the newcomer may have come as often before
		i = 0
		for j := range t.counts {
			if t.counts[j].Count < t.counts[i].Count {
				i = j
			}
		}
		t.keys[i] = key
		t.counts[i] = TopKey{Key: key, Count: t.counts[i].Count + 1, Error: t.counts[i].Count}
	}
	t.counts[i].size = uint8(copy(t.labels[i][:], label))
}

// Merge adds what another Top has counted, as in P. Agarwal et al., Mergeable Summaries (PODS 2012): a key that one of them does not
// follow may have been refused there as often as the least that it follows. The bound is then that of all refusals of both.
// It allocates: for who reads, not for a loop.
func (t *Top) Merge(from *Top) {
	type entry struct {
		TopKey
		label [LabelBytes]byte
	}
	mine, theirs := t.floor(), from.floor()
	all := make([]entry, 0, len(t.keys)+len(from.keys))
	for i, c := range t.counts {
		other := TopKey{Count: theirs, Error: theirs}
		if j := slices.Index(from.keys, c.Key); j >= 0 {
			other = from.counts[j]
		}
		c.Count, c.Error = c.Count+other.Count, c.Error+other.Error
		all = append(all, entry{c, t.labels[i]})
	}
	for j, c := range from.counts {
		if !slices.Contains(t.keys, c.Key) {
			c.Count, c.Error = c.Count+mine, c.Error+mine
			all = append(all, entry{c, from.labels[j]})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return byCount(a.TopKey, b.TopKey) })
	total := t.total + from.total
	t.Reset()
	t.total = total
	for i, e := range all[:min(len(all), cap(t.keys))] {
		t.keys, t.counts, t.labels[i] = append(t.keys, e.Key), append(t.counts, e.TopKey), e.label
	}
}

// floor is the most that a key which is not followed can have been refused.
func (t *Top) floor() uint64 {
	if len(t.keys) < cap(t.keys) {
		return 0
	}
	least := t.counts[0].Count
	for _, c := range t.counts {
		least = min(least, c.Count)
	}
	return least
}

// Total is how many refusals were counted.
func (t *Top) Total() uint64 { return t.total }

// Keys lists the keys, the most refused first. It allocates.
func (t *Top) Keys() []TopKey {
	all := slices.Clone(t.counts)
	for i := range all {
		all[i].Label = string(t.labels[i][:all[i].size])
	}
	slices.SortFunc(all, byCount)
	return all
}

// byCount orders the most refused first, and of equals the one that is more certain.
func byCount(a, b TopKey) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Error, b.Error))
}

// Reset forgets everything.
func (t *Top) Reset() {
	t.keys, t.counts, t.total = t.keys[:0], t.counts[:0], 0
}
