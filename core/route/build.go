package route

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
)

// builder sorts the rules so that everything that belongs together in the table lies together, and cuts the table
// out of the sorted list.
type builder struct {
	table  *Table
	items  []*item
	labels strings.Builder
	params map[string]uint32 // what is in table.params, by its text
	edges  []edge
}

// item is a rule on its way into the table.
type item struct {
	rule     rule
	priority int
	class    hostClass
	host     string
	kind     PathKind
	key      string // of a path in the tree: each segment after a separator
	count    int    // of conditions
}

// In keys separator stands for "/" and paramMark for a {name}. No path holds such a byte, and they sort before all that
// paths hold, separator first: so the keys that have a segment in common are neighbours when sorted, the empty one too.
const (
	separator = '\x01'
	paramMark = "\x02"
)

// edge is a static child of a node that has several.
type edge struct {
	parent, child uint32
	segment       string
}

func (b *builder) add(i int, r *Rule) error {
	if r.Target == nil {
		return errors.New("it has no target")
	}
	it := &item{priority: r.Priority, kind: r.Path.Kind}
	it.rule.target, it.rule.source = r.Target, int32(i)
	var err error
	if it.class, it.host, err = hostCondition(r.Host); err != nil {
		return err
	}
	if it.rule.methods, it.rule.when, it.count, err = compileConditions(r); err != nil {
		return err
	}
	switch r.Path.Kind {
	case PathAny:
		if r.Path.Value != "" {
			return fmt.Errorf("path %q has no kind", r.Path.Value)
		}
	case PathExact, PathPrefix:
		var params []param
		it.key, params, err = pathKey(r.Path)
		it.rule.params = b.share(params)
	case PathRegex:
		if it.rule.when == nil {
			it.rule.when = &conditions{}
		}
		it.rule.when.path, err = wholePath(r.Path.Value)
	default:
		return fmt.Errorf("path kind %d is unknown", r.Path.Kind)
	}
	b.items = append(b.items, it)
	return err
}

// pathKey checks an exact path or a prefix.
func pathKey(p Path) (key string, params []param, err error) {
	if len(p.Value) > maxPathBytes {
		return "", nil, fmt.Errorf("path is longer than %d bytes", maxPathBytes)
	}
	if p.Value == "" && p.Kind == PathPrefix {
		return "", nil, nil
	}
	normal, err := normalPath([]byte(p.Value))
	if err != nil {
		return "", nil, fmt.Errorf("%q is no path: %w", p.Value, err)
	}
	var w strings.Builder
	i := 0
	for s := range strings.SplitSeq(string(normal[1:]), "/") {
		w.WriteByte(separator)
		switch name, is := paramName(s); {
		case is && slices.ContainsFunc(params, func(p param) bool { return p.name == name }):
			return "", nil, fmt.Errorf("path %q has two segments {%s}", p.Value, name)
		case is && len(params) == maxParams:
			return "", nil, fmt.Errorf("path %q has more than %d parameters", p.Value, maxParams)
		case is:
			params = append(params, param{strings.Clone(name), i})
			w.WriteString(paramMark)
		case strings.ContainsAny(s, "{}"):
			return "", nil, fmt.Errorf("segment %q of path %q is not a {name} as a whole", s, p.Value)
		default:
			w.WriteString(s)
		}
		i++
	}
	return w.String(), slices.Clip(params), nil
}

// share gives the place of params in the table: most rules have the same few.
func (b *builder) share(params []param) uint32 {
	if len(params) == 0 {
		return 0
	}
	text := fmt.Sprint(params)
	at, found := b.params[text]
	if !found {
		at = uint32(len(b.table.params))
		b.table.params = append(b.table.params, params)
		b.params[text] = at
	}
	return at
}

// paramName is the name in a segment {name}: a letter or "_", then letters, digits, "_" and "-".
func paramName(s string) (string, bool) {
	if len(s) < 3 || s[0] != '{' || s[len(s)-1] != '}' {
		return "", false
	}
	s = s[1 : len(s)-1]
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return "", false
		}
	}
	return s, true
}

// compare puts items in the order of the table: level, site, place in the path, then the order in which rules of the
// same place are tried.
func compare(a, b *item) int {
	if c := cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.class, b.class)); c != 0 {
		return c
	}
	if c := strings.Compare(a.host, b.host); c != 0 {
		return c
	}
	if c := cmp.Compare(a.rank(), b.rank()); c != 0 {
		return c
	}
	if c := strings.Compare(a.key, b.key); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(a.kind, b.kind), // exact before prefix at the same node
		cmp.Compare(b.count, a.count),
		cmp.Compare(a.rule.source, b.rule.source),
	)
}

// rank is the place of the item's kind of path in its site: tree, list of regular expressions, rest.
func (it *item) rank() int {
	switch it.kind {
	case PathRegex:
		return 1
	case PathAny:
		return 2
	}
	return 0
}

func (b *builder) build() error {
	t := b.table
	slices.SortFunc(b.items, compare)
	t.rules = make([]rule, len(b.items))
	for i := range b.items {
		t.rules[i] = b.items[i].rule
	}
	t.nodes = append(t.nodes, node{})
	t.sites = append(t.sites, site{})
	for lo := 0; lo < len(b.items); {
		hi := b.run(lo, len(b.items), func(it *item) bool { return it.priority == b.items[lo].priority })
		b.level(lo, hi)
		lo = hi
	}
	t.labels = b.labels.String()
	if len(t.labels) > math.MaxUint32 || len(t.rules) > math.MaxInt32 {
		return errors.New("too many rules")
	}
	t.nodes, t.sites, t.levels = slices.Clip(t.nodes), slices.Clip(t.sites), slices.Clip(t.levels)
	b.hash()
	return nil
}

// run is the end of the run of items from lo on that are like the first of them.
func (b *builder) run(lo, hi int, like func(*item) bool) int {
	for i := lo + 1; i < hi; i++ {
		if !like(b.items[i]) {
			return i
		}
	}
	return hi
}

func (b *builder) level(lo, hi int) {
	l := level{priority: b.items[lo].priority}
	for lo < hi {
		first := b.items[lo]
		end := b.run(lo, hi, func(it *item) bool { return it.class == first.class && it.host == first.host })
		s := b.site(lo, end)
		lo = end
		switch first.class {
		case hostExact:
			l.exact = true
		case hostWildcard:
			l.wildcards[len(first.host)/64] |= 1 << (len(first.host) % 64)
		case hostAny:
			l.any = s
		}
	}
	b.table.levels = append(b.table.levels, l)
}

func (b *builder) site(lo, hi int) uint32 {
	first := b.items[lo]
	s := site{
		name:   uint32(b.labels.Len()),
		length: uint8(len(first.host)),
		class:  first.class,
		level:  uint32(len(b.table.levels)),
	}
	b.labels.WriteString(first.host)
	for lo < hi {
		rank := b.items[lo].rank()
		end := b.run(lo, hi, func(it *item) bool { return it.rank() == rank })
		switch rank {
		case 0:
			s.root = b.child(lo, end, 0, 0)
		case 1:
			s.regex = span{uint32(lo), uint32(end)}
		case 2:
			s.rest = span{uint32(lo), uint32(end)}
		}
		lo = end
	}
	b.table.sites = append(b.table.sites, s)
	return uint32(len(b.table.sites) - 1)
}

// node makes the node for the items lo to hi, whose keys are the same up to the offset at, and all below it.
func (b *builder) node(lo, hi, at int, depth uint16) uint32 {
	id := uint32(len(b.table.nodes))
	n := node{depth: depth, rules: uint32(lo)}
	b.table.nodes = append(b.table.nodes, node{})
	for ; lo < hi && len(b.items[lo].key) == at; lo++ {
		if b.items[lo].kind == PathExact {
			n.exact++
		} else {
			n.prefix++
		}
	}
	var children []edge
	for lo < hi {
		segment := b.items[lo].key[at+1 : segmentEnd(b.items[lo].key, at)]
		end := b.run(lo, hi, func(it *item) bool {
			return it.key[at+1:segmentEnd(it.key, at)] == segment
		})
		if segment == paramMark {
			n.param = b.node(lo, end, at+2, depth+1)
		} else {
			n.static = b.child(lo, end, at, depth)
			b.table.nodes[n.static].parent = id
			children = append(children, edge{id, n.static, segment})
		}
		lo = end
	}
	if len(children) > 1 {
		n.static = several
		b.edges = append(b.edges, children...)
	}
	b.table.nodes[id] = n // parent and label are set by the caller
	return id
}

// child makes a static child for items whose keys are the same up to the offset at: as many segments go into its label as lie before the
// next rule, {name} or fork. Only that of a root may have none.
func (b *builder) child(lo, hi, at int, depth uint16) uint32 {
	first, last := b.items[lo].key, b.items[hi-1].key
	end := at
	for ; len(first) > end; depth++ {
		e := segmentEnd(first, end)
		if first[end+1:e] == paramMark || len(last) < e || last[:e] != first[:e] || len(last) > e && last[e] != separator {
			break
		}
		end = e
	}
	id := b.node(lo, hi, end, depth)
	n := &b.table.nodes[id]
	n.label, n.length = uint32(b.labels.Len()), uint16(end-at)
	for _, c := range []byte(first[at:end]) {
		if c == separator {
			c = '/'
		}
		b.labels.WriteByte(c)
	}
	return id
}

// segmentEnd is the end of the segment of key whose separator is at the offset at.
func segmentEnd(key string, at int) int {
	if i := strings.IndexByte(key[at+1:], separator); i >= 0 {
		return at + 1 + i
	}
	return len(key)
}

// hash makes the indexes.
func (b *builder) hash() {
	t := b.table
	t.hosts = newIndex(len(t.sites))
	for i := 1; i < len(t.sites); i++ {
		s := &t.sites[i]
		if s.class == hostAny {
			continue // a level knows its own
		}
		name := t.labels[s.name : s.name+uint32(s.length)]
		t.hosts.put(maphash.String(t.seed, name)^spread(s.level<<1|uint32(s.class)), uint32(i))
	}
	t.below = newIndex(len(b.edges))
	for _, e := range b.edges {
		t.below.put(maphash.String(t.seed, e.segment)^spread(e.parent), e.child)
	}
}

// ParamNames are the names of the {name} segments of a path.
func ParamNames(p Path) (names []string) {
	if p.Kind != PathExact && p.Kind != PathPrefix {
		return nil
	}
	for s := range strings.SplitSeq(p.Value, "/") {
		if name, is := paramName(s); is {
			names = append(names, name)
		}
	}
	return names
}
