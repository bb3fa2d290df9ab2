package limits

import "fmt"

// Reconfigure gives a Limit with other windows, in which as many tokens are used as in l: nothing starts full. If the windows are
// the same it is l itself. Windows are matched by their order; one that is new starts full. Both limits may be in use at
// the same time, as long as exchanges of an old configuration are under way: they share their buckets, and each understands
// what the other writes.
//
// If the capacity changes, or more windows are wanted than a slot has words, the buckets are copied into a new table, and what
// is taken of l after that is not seen by the new one.
//
// It walks the table, without keeping anybody waiting: to be called where a configuration is put in force, not on a loop,
// and by one goroutine at a time.
func (l *Limit) Reconfigure(s Spec, now int64) (*Limit, error) {
	n, err := newLimit(s)
	if err != nil {
		return nil, fmt.Errorf("cannot change limit: %w", err)
	}
	if l.same(n) {
		return l, nil
	}
	if n.capacity != l.capacity || strideOf(len(n.rules)) != l.memory.stride {
		n.memory = &memory{table: newTable(s.Capacity, len(s.Windows))}
		n.memory.rules[0].Store(&n.rules)
		l.copyTo(n, now)
		return n, nil
	}
	// Words of older generations are brought to l's, so that none is found that has the number of the new one.
	l.each(func(at slot) {
		for i := range l.rules {
			for word := at.state(i); ; {
				was := word.Load()
				if was&ownerMask != at.owner() || was>>generationShift&(generations-1) == l.generation {
					break
				}
				if word.CompareAndSwap(was, l.word(l.state(was, at, i, now), at)) {
					break
				}
			}
		}
	})
	n.memory = l.memory
	n.generation = (l.generation + 1) % generations
	n.memory.rules[n.generation].Store(&n.rules)
	return n, nil
}

func (l *Limit) same(n *Limit) bool {
	if l.capacity != n.capacity || len(l.rules) != len(n.rules) {
		return false
	}
	for i := range l.rules {
		if l.rules[i] != n.rules[i] {
			return false
		}
	}
	return true
}

// each calls f for every slot that has an owner.
func (l *Limit) each(f func(slot)) {
	t := l.memory.table
	for i := range t.slots {
		words := t.at(i)
		if tag := words[0].Load(); tag>>tagShift != 0 && tag&tentative == 0 {
			f(slot{words, tag})
		}
	}
}

// copyTo puts what is used of l's buckets into those of n.
func (l *Limit) copyTo(n *Limit, now int64) {
	l.each(func(from slot) {
		key, ok := from.key()
		if !ok || l.weight(from, now) == 0 {
			return
		}
		to := n.memory.claim(key, now, n)
		if to.words == nil {
			n.memory.evicted.Add(1)
			return
		}
		for i := range n.rules {
			if i < len(l.rules) {
				state := l.state(from.state(i).Load(), from, i, now)
				to.state(i).Store(n.word(n.rules[i].convert(&l.rules[i], state, now), to))
			}
		}
	})
}

// key is the part of the owner's key that the slot holds, which stands for all of it. false: nobody has taken of it yet.
func (s slot) key() (Key, bool) {
	check := s.words[1].Load()
	return Key{Hi: s.tag &^ (1<<tagShift - 1), Lo: check &^ ownerMask}, check&ownerMask == s.owner()
}
