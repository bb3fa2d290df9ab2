package config

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

const (
	maxNameRunes    = 128
	maxPatternBytes = 1024
	maxPatterns     = 10_000
	maxDuration     = 24 * time.Hour
)

// decoder reads the syntax tree of one file into the loader's Config. Each of its methods reports what is wrong with the
// node that it is given, and leaves the destination alone then.
type decoder struct {
	*loader
	src     *source
	depth   int                 // of inclusion
	anchors map[string]ast.Node // seen so far in this file
}

func (d *decoder) at(n ast.Node) Pos { return position(d.src.name, n) }

func (d *decoder) problem(n ast.Node, hint, format string, args ...any) {
	d.problemAt(d.at(n), hint, format, args...)
}

// listed says whether a name is one of a list, separated by spaces.
func listed(names, name string) bool {
	for w := range strings.FieldsSeq(names) {
		if w == name {
			return true
		}
	}
	return false
}

// nearest returns a hint from a list of names, separated by spaces.
func (d *decoder) nearest(name, valid string) string {
	return d.hint(name, strings.FieldsSeq(valid))
}

// resolve takes anchors and aliases off a node. It returns nil, having reported why, where nothing usable is left.
func (d *decoder) resolve(n ast.Node) ast.Node {
	for range maxDepth {
		if d.nodes++; d.nodes > d.maxNodes {
			if !d.exhausted {
				d.exhausted = true
				d.problem(n, "", "aliases make this configuration larger than is read")
			}
			return nil
		}
		switch x := n.(type) {
		case nil:
			return nil
		case *ast.AnchorNode:
			n = x.Value
		case *ast.AliasNode:
			name := x.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok || !before(target, x) {
				d.problem(x, fmt.Sprintf(`a value that starts with * goes in quotes: "*%s"`, clip(name)),
					"no anchor &%s stands before this alias", clip(name))
				return nil
			}
			n = target
		case *ast.TagNode:
			d.problem(x, "", "YAML tags are not read")
			return nil
		case *ast.DirectiveNode:
			d.problem(x, "", "YAML directives are not read")
			return nil
		case *ast.MappingNode:
			return joinPlain(x)
		case *ast.LiteralNode: // a block scalar; its own token has no column
			return ast.String(token.String(x.Value.Value, x.Value.Value, x.Start.Position))
		default:
			return n
		}
	}
	d.problem(n, "", "this alias leads to itself")
	return nil
}

// joinPlain undoes a reading of the parser's that YAML 1.2 does not share: inside of a flow mapping it takes every colon of
// a plain scalar, as in { endpoints: [10.0.0.1:80] }, for the one between a key and its value. A colon separates only
// where white space follows it (section 7.3.3).
func joinPlain(n *ast.MappingNode) ast.Node {
	if n.IsFlowStyle || len(n.Values) != 1 || n.Values[0].Value == nil {
		return n
	}
	key, colon, value := n.Values[0].Key.GetToken(), n.Values[0].GetToken(), n.Values[0].Value.GetToken()
	for _, tk := range []*token.Token{key, value} {
		switch tk.Type {
		case token.StringType, token.IntegerType, token.FloatType, token.BoolType, token.NullType, token.OctetIntegerType:
		default:
			return n
		}
	}
	k, c, v := key.Position, colon.Position, value.Position
	if k.Line != v.Line || k.Column+utf8.RuneCountInString(key.Value) != c.Column || c.Column+1 != v.Column {
		return n
	}
	whole := key.Value + ":" + value.Value
	return ast.String(token.String(whole, whole, k))
}

func before(a, b ast.Node) bool {
	p, q := position("", a), position("", b)
	return p.Line < q.Line || p.Line == q.Line && p.Column < q.Column
}

// collectAnchors remembers the anchors below n. Only files that hold anchors pay for the walk.
func (d *decoder) collectAnchors(n ast.Node) {
	ast.Walk(anchorVisitor{d}, n)
}

type anchorVisitor struct{ d *decoder }

func (v anchorVisitor) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil && a.Value != nil {
		name := a.Name.GetToken().Value
		if first, twice := v.d.anchors[name]; twice && first != a.Value {
			v.d.problem(a, "", "anchor &%s is given twice; first at %s", clip(name), v.d.at(first))
		} else {
			v.d.anchors[name] = a.Value
		}
	}
	return v
}

// describe says in words what a resolved node is.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a map"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "a string"
	case *ast.IntegerNode:
		return "a number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a fraction"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "empty"
	}
	return "something else"
}

// isMap says whether a resolved node is a map. Of a value that has a short form as well, it is the whole one.
func isMap(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

func (d *decoder) wrongType(key string, n ast.Node, want string) {
	if _, ok := n.(*ast.NullNode); ok {
		d.problem(n, "", "%q has no value; it must be %s", key, want)
		return
	}
	d.problem(n, "", "%q must be %s, not %s", key, want, describe(n))
}

// mapping calls set for each key of a map, in order, and refuses keys that set does not know (valid lists those it does)
// or that stand twice.
func (d *decoder) mapping(what string, n ast.Node, valid string, set func(key string, k, v ast.Node) bool) bool {
	values, ok := d.pairs(what, n)
	if !ok {
		return false
	}
	const few = 16 // up to which it is cheaper to compare than to hash
	var seen map[string]int
	if len(values) > few {
		seen = make(map[string]int, len(values))
	}
	for i, pair := range values {
		if d.exhausted {
			return false
		}
		key, ok := d.key(pair.Key)
		if !ok {
			continue
		}
		first := i
		if seen != nil {
			if j, twice := seen[key]; twice {
				first = j
			}
			seen[key] = first
		} else {
			for j := range i {
				if values[j].Key.GetToken().Value == key {
					first = j
					break
				}
			}
		}
		if first < i {
			d.problem(pair.Key, "", "%q is given twice; first at %s", clip(key), d.at(values[first].Key))
			continue
		}
		if !set(key, pair.Key, given(pair)) {
			d.problem(pair.Key, d.nearest(key, valid), "unknown key %q", clip(key))
		}
	}
	return true
}

// entries calls add for each entry of a map of names, which may go on in other segments and files.
func (d *decoder) entries(what string, n ast.Node, add func(name string, k, v ast.Node)) {
	values, _ := d.pairs(what, n)
	for _, pair := range values {
		if d.exhausted {
			return
		}
		if name, ok := d.key(pair.Key); ok {
			add(name, pair.Key, given(pair))
		}
	}
}

// given returns a pair's value. One that is not there is put where its key is: the parser has no certain place for it.
func given(pair *ast.MappingValueNode) ast.Node {
	if null, ok := pair.Value.(*ast.NullNode); ok && null.Token.Type == token.ImplicitNullType {
		null.Token.Position = pair.Key.GetToken().Position
	}
	return pair.Value
}

// item returns a list's i-th item. One that is not there is put where its dash is.
func item(seq *ast.SequenceNode, i int) ast.Node {
	null, ok := seq.Values[i].(*ast.NullNode)
	if ok && null.Token.Type == token.ImplicitNullType && i < len(seq.Entries) && seq.Entries[i].Start != nil {
		null.Token.Position = seq.Entries[i].Start.Position
	}
	return seq.Values[i]
}

// pairs returns the keys and values of a map.
func (d *decoder) pairs(what string, n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch x := d.resolve(n).(type) {
	case nil:
	case *ast.MappingNode:
		return x.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{x}, true
	default:
		d.wrongType(what, x, "a map")
	}
	return nil, false
}

func (d *decoder) key(k ast.MapKeyNode) (string, bool) {
	switch k.(type) {
	case *ast.StringNode, *ast.IntegerNode:
		return k.GetToken().Value, true
	case *ast.MergeKeyNode:
		d.problem(k, "use an alias for a whole value", "merge keys are not read")
	default:
		d.problem(k, "put it in quotes", "a key must be a string")
	}
	return "", false
}

// list calls each for every item of a list, or once for a value that is not a list: the short form.
func (d *decoder) list(key string, n ast.Node, each func(v ast.Node)) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		each(n)
		return
	}
	if len(seq.Values) == 0 {
		d.problem(n, "", "%q is an empty list", key)
	}
	for i := range seq.Values {
		if d.exhausted {
			return
		}
		each(item(seq, i))
	}
}

// text reads a string. A number is taken as it is written, so that a version or an id needs no quotes.
func (d *decoder) text(key string, n ast.Node, to *string) bool {
	n = d.resolve(n)
	switch x := n.(type) {
	case nil:
		return false
	case *ast.StringNode:
		*to = x.Value
	case *ast.IntegerNode, *ast.FloatNode:
		*to = n.GetToken().Value
	default:
		d.wrongType(key, n, "a string")
		return false
	}
	return true
}

// word reads a string that must be one of the valid ones, separated by spaces.
func (d *decoder) word(key string, n ast.Node, valid string, to *string) {
	var s string
	if !d.text(key, n, &s) {
		return
	}
	if listed(valid, s) {
		*to = s
		return
	}
	d.problem(n, d.nearest(s, valid), "%q must be one of %s, not %q", key, strings.ReplaceAll(valid, " ", ", "), clip(s))
}

// name reads what identifies a listener or an upstream: it becomes a label of metrics and a part of paths.
func (d *decoder) name(what, name string, k ast.Node) {
	if !isName(name) {
		d.problem(k, fmt.Sprintf("letters, digits, '.', '_' and '-', at most %d", maxNameRunes), "%q cannot name %s", clip(name), what)
	}
}

func (d *decoder) boolean(key string, n ast.Node, to *bool) {
	n = d.resolve(n)
	switch x := n.(type) {
	case nil:
	case *ast.BoolNode:
		*to = x.Value
	default:
		d.wrongType(key, n, "true or false")
	}
}

// measure returns what is written for a duration or a size: both are strings with a unit, or a plain 0.
func (d *decoder) measure(key string, n ast.Node, want string) (string, ast.Node) {
	n = d.resolve(n)
	switch x := n.(type) {
	case nil:
		return "", nil
	case *ast.StringNode:
		return x.Value, n
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, n
	}
	d.wrongType(key, n, want)
	return "", nil
}

func (d *decoder) duration(key string, n ast.Node, low time.Duration, to *time.Duration) {
	d.durationUpTo(key, n, low, maxDuration, to)
}

// optionalDuration reads a limit that 0 turns off.
func (d *decoder) optionalDuration(key string, n ast.Node, to *time.Duration) {
	v := *to
	d.duration(key, n, 0, &v)
	if v > 0 && v < time.Millisecond {
		d.problem(n, "", "%q must be 0, or from 1ms to %s", key, formatDuration(maxDuration))
		return
	}
	*to = v
}

func (d *decoder) durationUpTo(key string, n ast.Node, low, high time.Duration, to *time.Duration) {
	written, n := d.measure(key, n, "a duration")
	if n == nil {
		return
	}
	v, hint, ok := parseDuration(written)
	switch {
	case !ok:
		d.problem(n, hint, "%q must be a duration, not %q", key, clip(written))
	case v < low || v > high:
		d.problem(n, "", "%q must be from %s to %s", key, formatDuration(low), formatDuration(high))
	default:
		*to = v
	}
}

func (d *decoder) size(key string, n ast.Node, low, high int64, to *int64) {
	written, n := d.measure(key, n, "a size")
	if n == nil {
		return
	}
	v, hint, ok := parseSize(written)
	switch {
	case !ok:
		d.problem(n, hint, "%q must be a size, not %q", key, clip(written))
	case v < low || v > high:
		d.problem(n, "", "%q must be from %s to %s", key, formatSize(low), formatSize(high))
	default:
		*to = v
	}
}

func (d *decoder) sizeInt(key string, n ast.Node, low, high int64, to *int) {
	v := int64(*to)
	d.size(key, n, low, high, &v)
	*to = int(v)
}

// pattern compiles a regular expression that stands at the offset-th byte of the scalar n, whose value is whole.
func (d *decoder) pattern(n ast.Node, whole string, offset int) *regexp.Regexp {
	text := whole[offset:]
	if re, ok := d.patterns[text]; ok {
		return re
	}
	at := d.src.inside(d.at(n), whole, offset)
	switch {
	case text == "":
		d.problemAt(at, "", "the regular expression is empty")
		return nil
	case len(text) > maxPatternBytes:
		d.problemAt(at, "", "the regular expression is longer than %d bytes", maxPatternBytes)
		return nil
	case len(d.patterns) >= maxPatterns:
		d.problemAt(at, "", "there are more than %d different regular expressions", maxPatterns)
		return nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		message := err.Error()
		if failure, ok := err.(*syntax.Error); ok {
			message = failure.Code.String()
			if i := strings.Index(text, failure.Expr); i > 0 && failure.Expr != "" {
				at = d.src.inside(d.at(n), whole, offset+i)
			}
			if failure.Expr != "" {
				message += fmt.Sprintf(": %q", clip(failure.Expr))
			}
		}
		d.problemAt(at, "", "bad regular expression: %s", message)
		return nil
	}
	d.patterns[text] = re
	return re
}
