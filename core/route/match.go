package route

import "github.com/sluice-gateway/sluice/core"

// Match implements core.Router. x.Request.Path must be normalised.
func (t *Table) Match(x *core.Exchange) *core.Route {
	var name [maxHostBytes]byte
	s := search{table: t, x: x, path: x.Request.Path, host: requestHost(&name, x.Request.Host())}
	r := s.run()
	if r == nil {
		return nil
	}
	if r.params != 0 {
		fill(x, t.params[r.params])
	}
	return r.target
}

// search is one match under way. It lives on the stack.
type search struct {
	table *Table
	x     *core.Exchange
	path  []byte
	host  []byte // lower case, without port; empty: only rules for any host apply

	hits    [maxHits]hit // prefixes that end on the path, the deepest first, else in the order of the walk
	found   int          // of those; more than maxHits: the array does not hold them
	deepest uint16       // of all prefixes found

	trace *trace // nil but for Explain
}

// hit is a node with prefixes.
type hit struct {
	node  uint32
	depth uint16
}

// maxHits is what nearly every walk can do with. A request that finds more is searched once for each depth instead.
const maxHits = 8

// run tries the priorities, in each the host classes.
func (s *search) run() *rule {
	for i := range s.table.levels {
		l := &s.table.levels[i]
		if s.trace != nil {
			s.trace.priority = l.priority
		}
		if len(s.host) > 0 {
			if l.exact {
				if id := s.table.site(uint32(i), hostExact, s.host); id != 0 {
					if r := s.site(id, hostExact); r != nil {
						return r
					}
				}
			}
			if l.wildcards != [len(l.wildcards)]uint64{} {
				if r := s.wildcards(l, uint32(i)); r != nil {
					return r
				}
			}
		}
		if l.any != 0 {
			if r := s.site(l.any, hostAny); r != nil {
				return r
			}
		}
	}
	return nil
}

// wildcards tries what follows each dot, the longest first. Only lengths that some rule has are looked up, so that a host
// of a hundred dots costs no more than another.
func (s *search) wildcards(l *level, number uint32) *rule {
	for i := 1; i < len(s.host)-1; i++ {
		if s.host[i] != '.' {
			continue
		}
		suffix := s.host[i+1:]
		if l.wildcards[len(suffix)/64]&(1<<(len(suffix)%64)) == 0 {
			continue
		}
		if id := s.table.site(number, hostWildcard, suffix); id != 0 {
			if r := s.site(id, hostWildcard); r != nil {
				return r
			}
		}
	}
	return nil
}

// site tries the rules of one host condition: exact paths, prefixes, regular expressions, the rest.
func (s *search) site(id uint32, class hostClass) *rule {
	e := &s.table.sites[id]
	if s.trace != nil {
		s.trace.host = class
	}
	if e.root != 0 {
		if r := s.tree(e.root); r != nil {
			return r
		}
	}
	if e.regex.start < e.regex.end {
		if r := s.try(e.regex.start, e.regex.end, PathRegex); r != nil {
			return r
		}
	}
	if e.rest.start < e.rest.end {
		return s.try(e.rest.start, e.rest.end, PathAny)
	}
	return nil
}

// tree tries exact paths and prefixes.
func (s *search) tree(root uint32) *rule {
	s.found, s.deepest = 0, 0
	n, at := &s.table.nodes[root], 0
	if n.length > 0 {
		if at = s.table.label(root, s.path, 0); at == 0 {
			return nil
		}
	}
	if len(s.path) > 0 && s.path[0] == '/' {
		if r := s.walk(root, at); r != nil {
			return r
		}
	} else if n.prefix > 0 { // "*" and the like
		s.hit(root, n)
	}
	if s.found > maxHits {
		for depth := int(s.deepest); depth >= 0; depth-- {
			if r := s.prefixesAt(root, at, uint16(depth)); r != nil {
				return r
			}
		}
		return nil
	}
	for i := range s.found {
		n := &s.table.nodes[s.hits[i].node]
		if r := s.try(n.rules+n.exact, n.rules+n.exact+n.prefix, PathPrefix); r != nil {
			return r
		}
	}
	return nil
}

// walk follows the path from the offset at, below the node id: static segments before a {name}. It gives the first rule
// for the whole path whose conditions hold, and notes the prefixes on the way.
func (s *search) walk(id uint32, at int) *rule {
	t := s.table
	for {
		n := &t.nodes[id]
		if n.prefix > 0 {
			s.hit(id, n)
		}
		if at == len(s.path) {
			if n.exact == 0 {
				return nil
			}
			return s.try(n.rules, n.rules+n.exact, PathExact)
		}
		if n.param == 0 && n.static != several {
			if at = t.label(n.static, s.path, at); at == 0 {
				return nil
			}
			id = n.static
			continue
		}
		end := segmentAfter(s.path, at)
		param := n.param
		if end == at+1 {
			param = 0
		}
		child, next := t.follow(n, id, s.path, at, end)
		switch {
		case next == 0 && param == 0:
			return nil
		case next == 0:
			id, at = param, end
		case param == 0:
			id, at = child, next
		default:
			if r := s.walk(child, next); r != nil {
				return r
			}
			id, at = param, end
		}
	}
}

// hit notes a node with prefixes.
func (s *search) hit(id uint32, n *node) {
	s.deepest = max(s.deepest, n.depth)
	s.found++
	if s.found > maxHits {
		return
	}
	i := s.found - 1
	for ; i > 0 && s.hits[i-1].depth < n.depth; i-- {
		s.hits[i] = s.hits[i-1]
	}
	s.hits[i] = hit{id, n.depth}
}

// prefixesAt is walk for the prefixes of one depth.
func (s *search) prefixesAt(id uint32, at int, depth uint16) *rule {
	t := s.table
	for {
		n := &t.nodes[id]
		if n.depth >= depth || at == len(s.path) {
			if n.depth == depth && n.prefix > 0 {
				return s.try(n.rules+n.exact, n.rules+n.exact+n.prefix, PathPrefix)
			}
			return nil
		}
		end := segmentAfter(s.path, at)
		if child, next := t.follow(n, id, s.path, at, end); next > 0 {
			if r := s.prefixesAt(child, next, depth); r != nil {
				return r
			}
		}
		if n.param == 0 || end == at+1 {
			return nil
		}
		id, at = n.param, end
	}
}

// try gives the first of the rules whose conditions hold.
func (s *search) try(start, end uint32, kind PathKind) *rule {
	rules := s.table.rules[start:end]
	for i := range rules {
		r := &rules[i]
		why := r.refuses(s.x)
		if s.trace != nil {
			if s.trace.add(r, kind, why) {
				continue
			}
			return r
		}
		if why.kind == accepted {
			return r
		}
	}
	return nil
}

// fill sets the path's parameters, which are found anew: a walk need not note what most walks do not use.
func fill(x *core.Exchange, params []param) {
	path := x.Request.Path
	at, segment := 0, 0
	for _, p := range params {
		for ; segment < p.segment; segment++ {
			at = segmentAfter(path, at)
		}
		x.AddParam(p.name, path[at+1:segmentAfter(path, at)])
	}
}
