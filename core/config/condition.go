package config

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
	yaml "github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// conditionNames are what an expression can name; core.Condition knows what they mean.
type conditionNames struct {
	Consumer consumer            `expr:"consumer"`
	Method   string              `expr:"method"`
	Path     string              `expr:"path"`
	Host     string              `expr:"host"`
	IP       string              `expr:"ip"`
	Country  string              `expr:"country"`
	Scheme   string              `expr:"scheme"`
	Claim    func(string) string `expr:"claim"`
	Header   func(string) string `expr:"header"`

	Split func(text, by string) []string `expr:"split"`
}

// consumer is nobody's if his name is "".
type consumer struct {
	Name   string   `expr:"name"`
	User   string   `expr:"user"`
	Tier   string   `expr:"tier"`
	Tenant string   `expr:"tenant"`
	KeyID  string   `expr:"key_id"`
	Groups []string `expr:"groups"`
	Roles  []string `expr:"roles"`
	Tags   []string `expr:"tags"`
}

const (
	maxConditionBytes = 4096
	maxConditionNodes = 1000
	maxConditionJoins = 8 // of texts by "+", each of which may be as long as a header
)

// conditionBuiltins are the functions of the language that an expression may use: none that reads a clock or makes much of little.
var conditionBuiltins = [...]string{"len", "any", "all", "none", "one", "lower", "upper", "trim"}

// condition reads an expression, and tells where in it something is wrong.
func (d *decoder) condition(key string, n yaml.Node, a *Access) {
	if !d.text(key, n, &a.When) {
		return
	}
	at := d.at(n)
	if a.When == "" || len(a.When) > maxConditionBytes {
		d.problemAt(at, "", "%q has from 1 to %d bytes", key, maxConditionBytes)
		return
	}
	var err error
	if a.asks, err = checkCondition(a.When); err == nil {
		return
	}
	message := err.Error()
	var placed *file.Error
	if errors.As(err, &placed) {
		message = placed.Message
		if s, plain := d.resolve(n).(*yaml.StringNode); plain && placed.Line == 1 {
			at.Column += int32(placed.Column)
			if s.Token.Type != token.StringType {
				at.Column++ // the quote
			}
		}
	}
	d.problemAt(at, `such as: consumer.tier == "gold" or method in ["GET", "HEAD"]`, "cannot understand %q: %s", key, clip(message))
}

// checkCondition checks names and types, and gives the claims that are asked for.
func checkCondition(text string) (claims []string, err error) {
	v, bounds := &claimVisitor{}, &boundsVisitor{}
	options := []expr.Option{expr.Env(conditionNames{}), expr.AsBool(), expr.DisableAllBuiltins(), expr.MaxNodes(maxConditionNodes), expr.Patch(bounds)}
	for _, name := range conditionBuiltins {
		options = append(options, expr.EnableBuiltin(name))
	}
	var program *vm.Program
	if program, err = expr.Compile(text, options...); err != nil {
		return nil, err
	}
	if bounds.unbounded != nil {
		return nil, (&file.Error{Location: bounds.unbounded.Location(), Message: bounds.why}).Bind(program.Source())
	}
	node := program.Node()
	ast.Walk(&node, v)
	if v.named > v.calls && v.unnamed == nil {
		return nil, errors.New("claim is only called, as in claim(\"sub\")")
	}
	if v.unnamed != nil {
		return nil, (&file.Error{Location: v.unnamed.Location(), Message: "claim wants a name in quotes"}).Bind(program.Source())
	}
	return v.claims, nil
}

// claimVisitor finds the claims that an expression names: those of a token are kept only if somebody asks for them.
type claimVisitor struct {
	claims       []string
	named, calls int
	unnamed      ast.Node
}

// Visit is called for each node.
func (v *claimVisitor) Visit(node *ast.Node) {
	if name, ok := (*node).(*ast.IdentifierNode); ok && name.Value == "claim" {
		v.named++
	}
	call, ok := (*node).(*ast.CallNode)
	if !ok || len(call.Arguments) != 1 {
		return
	}
	if name, ok := call.Callee.(*ast.IdentifierNode); !ok || name.Value != "claim" {
		return
	}
	v.calls++
	if s, ok := call.Arguments[0].(*ast.StringNode); ok {
		v.claims = append(v.claims, s.Value)
	} else {
		v.unnamed = call
	}
}

// boundsVisitor finds what could keep a loop of the gateway busy for long: the texts of a request are the client's. It changes nothing.
type boundsVisitor struct {
	joins     int
	unbounded ast.Node // the first
	why       string
}

// Visit is called for each node, as it was written.
func (v *boundsVisitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.VariableDeclaratorNode:
		v.refuse(n, "let is not for conditions")
	case *ast.BinaryNode:
		_, plain := n.Right.(*ast.StringNode)
		switch {
		case n.Operator == "..":
			v.refuse(n, "ranges are not for conditions")
		case n.Operator == "matches" && !plain:
			v.refuse(n, "matches wants a pattern in quotes")
		case n.Operator == "+":
			if v.joins++; v.joins > maxConditionJoins {
				v.refuse(n, fmt.Sprintf("a condition has at most %d sums", maxConditionJoins))
			}
		}
	case *ast.BuiltinNode:
		if n.Name == "trim" && len(n.Arguments) > 1 {
			if _, plain := n.Arguments[1].(*ast.StringNode); !plain {
				v.refuse(n, "trim wants what it takes away in quotes")
			}
		}
	case *ast.PredicateNode:
		inner := &predicateVisitor{}
		ast.Walk(&n.Node, inner)
		if inner.found {
			v.refuse(n, "any, all, none and one do not go into one another")
		}
	}
}

func (v *boundsVisitor) refuse(n ast.Node, why string) {
	if v.unbounded == nil {
		v.unbounded, v.why = n, why
	}
}

// predicateVisitor says whether there is a predicate.
type predicateVisitor struct{ found bool }

// Visit is called for each node.
func (v *predicateVisitor) Visit(node *ast.Node) {
	_, ok := (*node).(*ast.PredicateNode)
	v.found = v.found || ok
}
