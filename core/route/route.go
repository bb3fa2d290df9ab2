// Package route finds the route of a request, and holds what a route itself says of a request: edits of its path and host,
// and answers that need no upstream.
//
// A Table is compiled once from Rules and immutable. Of the rules that a request meets, the one with the highest priority
// wins; then an exact host before a wildcard (the longer first) before any host; then an exact path, in which a static
// segment goes before a {name} at the same place, before the longest prefix before a regular expression before any path;
// then the rule with more conditions; then the one written first. A rule whose conditions fail lets the next best be
// tried, over paths, hosts and priorities.
//
// Match allocates nothing, with these exceptions: a ninth path parameter; a query argument with escapes that is compared
// with a regular expression; what package regexp allocates. That package keeps its machines in pools that all loops
// share, so a rule with a regular expression costs more than one without.
package route

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"regexp"

	"github.com/sluice-gateway/sluice/core"
)

// Rule is one set of conditions that must all hold, and the route that a request then takes. Where several rules are
// equally specific, the earlier in the list given to New goes first.
type Rule struct {
	Target   *core.Route
	Priority int // higher goes before every other rule

	Host Host
	Path Path

	Listeners    []string // any of these names; empty: any listener
	Methods      []string // any of these; empty: any method
	Headers      []Field
	Query        []Field
	Cookies      []Field
	ContentTypes []string // any of these media types without parameters; "text/*" and "*/*" stand for several
	Clients      []netip.Prefix
}

// Host is a condition on the request's host, whose case, port and final dot do not matter. The zero Host is any.
type Host struct {
	Name     string // without port
	Wildcard bool   // *.Name: one or more labels before it
}

// PathKind is the way a path condition is meant.
type PathKind uint8

const (
	PathAny    PathKind = iota // no condition
	PathExact                  // the whole path
	PathPrefix                 // the path and everything below it, at the border of a segment
	PathRegex                  // RE2 for the whole path: anchors are added
)

// Path is a condition on the normalised path; literals must be written in normalised form. In an exact path and in a
// prefix a segment {name} stands for any one segment that is not empty.
type Path struct {
	Kind  PathKind
	Value string // of a prefix without its "/*": "" is every path, that of "OPTIONS *" too
}

// FieldOp is how a header, query argument or cookie is compared.
type FieldOp uint8

const (
	FieldExact   FieldOp = iota // one of its values is equal to Value
	FieldPresent                // it is there, though perhaps empty
	FieldAbsent
	FieldRegex // one of its values matches Regex somewhere
)

// Field is a condition on a header, a query argument or a cookie. Names of headers are compared in any case, the others
// as they are; query arguments after decoding percent triplets and "+"; cookies without the quotes around the value.
type Field struct {
	Name  string
	Op    FieldOp
	Value string
	Regex *regexp.Regexp // of FieldRegex
}

// Bounds of what a rule may hold.
const (
	maxPathBytes = 8 << 10
	maxParams    = 16
	maxHostBytes = 253 // of a domain name in text (RFC 1035, 2.3.4)
)

// Table is a set of rules, compiled. It is immutable: any number of loops use it at once. Its memory is under 1 KiB for
// each rule with a path of ordinary length.
//
// The work of a match is that of one walk down the path for each host class (exact, each matching wildcard, any) of each
// distinct priority, with one hash look-up at each segment; where rules have a {name} and a static segment at the same
// place both ways are tried, but no node is visited twice, or no more often than it has segments above it where a path
// meets more than eight prefixes. Rules with regular expressions, and rules that differ by
// nothing but conditions, are tried one by one.
type Table struct {
	levels []level // by priority, highest first
	sites  []site  // sites[0] is none
	hosts  index   // of the sites that have a name
	nodes  []node  // nodes[0] is none
	below  index   // of the children of nodes that have several
	seed   maphash.Seed
	labels string
	rules  []rule    // in the order of the sort: those of a node, and of a list, are neighbours
	params [][]param // params[0] is none; rules with the same parameters share them
}

// level is the rules of one priority.
type level struct {
	priority  int
	exact     bool                        // there are exact hosts
	wildcards [maxHostBytes/64 + 1]uint64 // a bit for each length that the name of a wildcard has
	any       uint32                      // site
}

// site is the rules of one host condition at one priority.
type site struct {
	name   uint32 // in Table.labels
	level  uint32
	root   uint32 // node for what all exact paths and prefixes begin with; 0: no rule has such a path
	length uint8  // of the name; at most maxHostBytes
	class  hostClass
	regex  span
	rest   span // no condition on the path
}

// span is a run of Table.rules.
type span struct{ start, end uint32 }

// rule is a Rule without host and path, which stand in the table's structure.
type rule struct {
	target  *core.Route
	when    *conditions // nil: none but methods
	params  uint32      // in Table.params
	source  int32       // index in the list given to New
	methods uint16      // a bit for each core.Method; 0: any
}

// param is a {name} at a place in the path.
type param struct {
	name    string
	segment int // from 0
}

// RuleError says which of the rules given to New is refused, and why.
type RuleError struct {
	Rule int // index in the list
	Err  error
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("cannot compile route rule %d: %v", e.Rule, e.Err)
}

// Unwrap gives what is wrong with the rule.
func (e *RuleError) Unwrap() error { return e.Err }

// New compiles rules, of which it keeps nothing but targets and regular expressions. It fails with a *RuleError where the
// fault is a rule's.
func New(rules []Rule) (*Table, error) {
	b := builder{table: &Table{seed: maphash.MakeSeed(), params: [][]param{nil}}, items: make([]*item, 0, len(rules)), params: map[string]uint32{}}
	for i := range rules {
		if err := b.add(i, &rules[i]); err != nil {
			return nil, &RuleError{i, err}
		}
	}
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("cannot build route table: %w", err)
	}
	return b.table, nil
}
