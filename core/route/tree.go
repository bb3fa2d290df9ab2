package route

import (
	"bytes"
	"hash/maphash"
)

// node is a place in the tree of paths: the end of a run of segments that all the rules below it have in common. It and
// its neighbours lie in one slice without pointers: nothing for the garbage collector to follow.
type node struct {
	label         uint32 // in Table.labels: the static segments that lead here, each after its "/"
	length        uint16 // of that; at most maxPathBytes
	depth         uint16 // segments from the root
	parent        uint32
	static        uint32 // the static child; 0: none
	param         uint32 // the child for any one segment; 0: none
	rules         uint32 // start of the rules that end here: first the exact, then the prefixes
	exact, prefix uint32 // their numbers
}

// several as node.static says that the children are in the hash table.
const several = ^uint32(0)

// index is a hash table with linear probing. At most half of it is in use, so that a search for what is not there ends
// soon; the seed is the table's own, so that nobody can look for what takes long.
type index struct {
	slots []slot
	mask  uint64
}

type slot struct {
	mark uint32 // of the hash: most of what is looked for elsewhere is passed over without a look at it
	id   uint32 // of a node or site; 0: free
}

// newIndex makes an index for n entries.
func newIndex(n int) index {
	size := 1
	for size < 2*n {
		size *= 2
	}
	return index{make([]slot, size), uint64(size - 1)}
}

func (x *index) put(hash uint64, id uint32) {
	i := hash & x.mask
	for x.slots[i].id != 0 {
		i = (i + 1) & x.mask
	}
	x.slots[i] = slot{uint32(hash >> 32), id}
}

// spread makes the hashes of the same text at different places differ.
func spread(n uint32) uint64 { return uint64(n) * 0x9e3779b97f4a7c15 }

// site finds the site of a host name in lower case; 0: there is none.
func (t *Table) site(level uint32, class hostClass, name []byte) uint32 {
	h := maphash.Bytes(t.seed, name) ^ spread(level<<1|uint32(class))
	for i := h & t.hosts.mask; ; i = (i + 1) & t.hosts.mask {
		s := t.hosts.slots[i]
		if s.id == 0 {
			return 0
		}
		if s.mark != uint32(h>>32) {
			continue
		}
		e := &t.sites[s.id]
		if e.level == level && e.class == class && string(name) == t.labels[e.name:e.name+uint32(e.length)] {
			return s.id
		}
	}
}

// follow is the static child of n that path continues with at the offset at, where a "/" is, and the offset after its
// label; end is that of the segment. The child is 0 when there is none.
func (t *Table) follow(n *node, id uint32, path []byte, at, end int) (child uint32, next int) {
	if n.static == 0 {
		return 0, 0
	}
	if n.static != several {
		return n.static, t.label(n.static, path, at)
	}
	h := maphash.Bytes(t.seed, path[at+1:end]) ^ spread(id)
	for i := h & t.below.mask; ; i = (i + 1) & t.below.mask {
		s := t.below.slots[i]
		if s.id == 0 {
			return 0, 0
		}
		if s.mark == uint32(h>>32) && t.nodes[s.id].parent == id {
			if next = t.label(s.id, path, at); next > 0 {
				return s.id, next
			}
		}
	}
}

// label is the offset after the label of a node where path has it at the offset at, up to the border of a segment; else 0,
// which it is for node 0, too.
func (t *Table) label(id uint32, path []byte, at int) int {
	n := &t.nodes[id]
	end := at + int(n.length)
	if end == at || end > len(path) || end < len(path) && path[end] != '/' ||
		string(path[at:end]) != t.labels[n.label:n.label+uint32(n.length)] {
		return 0
	}
	return end
}

// segmentAfter is the end of the segment of path whose "/" is at the offset at.
func segmentAfter(path []byte, at int) int {
	if i := bytes.IndexByte(path[at+1:], '/'); i >= 0 {
		return at + 1 + i
	}
	return len(path)
}
