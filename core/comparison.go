package core

import (
	"bytes"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// comparison compares something of a request with what stands in an expression. The machine that runs expressions would make a value on the heap
// of each text; a comparison makes none. It is immutable.
type comparison struct {
	of      string // as in facts, such as path or consumer.tier, or claim or header
	name    string // of the claim or the header
	how     string // ==, !=, in, contains, startsWith, endsWith, matches; has: a list has it
	text    string
	bytes   []byte // the same
	texts   []string
	pattern *regexp.Regexp
}

// comparer puts comparisons in the place of what they compare.
type comparer struct{ all []comparison }

// Visit is called for each node, after those below it.
func (v *comparer) Visit(node *ast.Node) {
	b, ok := (*node).(*ast.BinaryNode)
	if !ok {
		return
	}
	c, ok := compares(b)
	if !ok {
		return
	}
	if c.of == "host" && c.how != "matches" { // which is in lower case
		c.text = strings.ToLower(c.text)
		for i, s := range c.texts {
			c.texts[i] = strings.ToLower(s)
		}
	}
	c.bytes = []byte(c.text)
	ast.Patch(node, &ast.CallNode{Callee: &ast.IdentifierNode{Value: "holds"}, Arguments: []ast.Node{&ast.IntegerNode{Value: len(v.all)}}})
	v.all = append(v.all, c)
}

// compares reads a comparison. ok is false where it is none that is known here: the machine knows all.
func compares(b *ast.BinaryNode) (c comparison, ok bool) {
	if s, text := b.Left.(*ast.StringNode); text && b.Operator == "in" {
		of, _, ok := subject(b.Right)
		return comparison{of: of, how: "has", text: s.Value}, ok && isList(of)
	}
	left, right := b.Left, b.Right
	if _, text := left.(*ast.StringNode); text && (b.Operator == "==" || b.Operator == "!=") {
		left, right = right, left
	}
	if c.of, c.name, ok = subject(left); !ok || isList(c.of) {
		return c, false
	}
	c.how = b.Operator
	switch r := right.(type) {
	case *ast.StringNode:
		c.text = r.Value
		switch c.how {
		case "==", "!=", "contains", "startsWith", "endsWith":
			return c, true
		case "matches":
			var err error
			c.pattern, err = regexp.Compile(c.text)
			return c, err == nil
		}
	case *ast.ArrayNode:
		for _, n := range r.Nodes {
			s, text := n.(*ast.StringNode)
			if !text {
				return c, false
			}
			c.texts = append(c.texts, s.Value)
		}
		return c, c.how == "in"
	}
	return c, false
}

// isList says whether what is compared is a list.
func isList(of string) bool {
	return of == "consumer.groups" || of == "consumer.roles" || of == "consumer.tags"
}

// subject reads what is compared.
func subject(n ast.Node) (of, name string, ok bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		switch n.Value {
		case "method", "path", "host", "ip", "scheme":
			return n.Value, "", true
		}
	case *ast.MemberNode:
		parent, named := n.Node.(*ast.IdentifierNode)
		field, text := n.Property.(*ast.StringNode)
		if named && text && parent.Value == "consumer" {
			return "consumer." + field.Value, "", true
		}
	case *ast.CallNode:
		callee, named := n.Callee.(*ast.IdentifierNode)
		if !named || len(n.Arguments) != 1 || callee.Value != "claim" && callee.Value != "header" {
			return "", "", false
		}
		s, text := n.Arguments[0].(*ast.StringNode)
		if text {
			return callee.Value, s.Value, true
		}
	}
	return "", "", false
}

// holds compares, in memory that a host has room in. It allocates nothing.
func (c *comparison) holds(x *Exchange, memory []byte) bool {
	var who Consumer
	if x.Consumer != nil {
		who = *x.Consumer
	}
	switch c.of {
	case "method":
		return c.holdsBytes(x.Request.MethodBytes())
	case "path":
		return c.holdsBytes(x.Request.Path)
	case "host":
		return c.holdsBytes(appendHost(memory, HostOf(x.Request.Host())))
	case "ip":
		return c.holdsBytes(x.Client.Text)
	case "header":
		v, _ := x.Request.Single(c.name)
		return c.holdsBytes(v)
	case "claim":
		v, _ := x.Claims.Value(c.name)
		return c.holdsText(v)
	case "scheme":
		return c.holdsText(x.Listener.Scheme)
	case "consumer.name":
		return c.holdsText(who.Name)
	case "consumer.user":
		return c.holdsText(who.User)
	case "consumer.tier":
		return c.holdsText(who.Tier)
	case "consumer.tenant":
		return c.holdsText(who.Tenant)
	case "consumer.key_id":
		return c.holdsText(who.KeyID)
	case "consumer.groups":
		return slices.Contains(who.Groups, c.text)
	case "consumer.roles":
		return slices.Contains(who.Roles, c.text)
	case "consumer.tags":
		return slices.Contains(who.Tags, c.text)
	}
	panic("BUG: nothing of a request is called " + c.of)
}

func (c *comparison) holdsBytes(v []byte) bool {
	switch c.how {
	case "==":
		return string(v) == c.text
	case "!=":
		return string(v) != c.text
	case "contains":
		return bytes.Contains(v, c.bytes)
	case "startsWith":
		return bytes.HasPrefix(v, c.bytes)
	case "endsWith":
		return bytes.HasSuffix(v, c.bytes)
	case "matches":
		return c.pattern.Match(v)
	}
	for _, s := range c.texts {
		if string(v) == s {
			return true
		}
	}
	return false
}

func (c *comparison) holdsText(v string) bool {
	switch c.how {
	case "==":
		return v == c.text
	case "!=":
		return v != c.text
	case "contains":
		return strings.Contains(v, c.text)
	case "startsWith":
		return strings.HasPrefix(v, c.text)
	case "endsWith":
		return strings.HasSuffix(v, c.text)
	case "matches":
		return c.pattern.MatchString(v)
	}
	return slices.Contains(c.texts, v)
}
