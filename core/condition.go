package core

import (
	"errors"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// facts are what an expression of a condition can name. core/config checks expressions against the same names, and a test that they are.
type facts struct {
	Consumer consumerFacts       `expr:"consumer"`
	Method   string              `expr:"method"`
	Path     string              `expr:"path"`
	Host     string              `expr:"host"`    // without the port, in lower case, and without a dot at its end
	IP       string              `expr:"ip"`      // of the client, behind trusted proxies
	Country  string              `expr:"country"` // of the client, by a policy before this one; "": it is not known
	Scheme   string              `expr:"scheme"`
	Claim    func(string) string `expr:"claim"`  // of the verified token; "": it has none
	Header   func(string) string `expr:"header"` // the only line of that name; "": there is none, or several

	Split func(text, by string) []string `expr:"split"` // at most maxParts; more is an error
	Holds func(int) bool                 `expr:"holds"` // a comparison, by its number; core/config does not know this one
}

// consumerFacts are empty for nobody.
type consumerFacts struct {
	Name   string   `expr:"name"`
	User   string   `expr:"user"`
	Tier   string   `expr:"tier"`
	Tenant string   `expr:"tenant"`
	KeyID  string   `expr:"key_id"`
	Groups []string `expr:"groups"`
	Roles  []string `expr:"roles"`
	Tags   []string `expr:"tags"`
}

// maxParts bounds what a condition goes through, one by one: a path can be split into as many parts as it has bytes.
const maxParts = 256

// Condition is an expression over a request that is true or false, such as `consumer.tier == "gold" || method == "GET"`. It is immutable.
//
// Comparisons of what a request or its consumer has with texts that stand in the expression (==, !=, in, contains, startsWith, endsWith, matches, and
// "x" in consumer.groups, roles or tags) allocate nothing, however they are joined. Each other use of a text makes a value on the heap, and what is the client's is
// copied before: len(path) allocates twice, any(consumer.groups, # == "x") three times.
type Condition struct {
	program     *vm.Program
	comparisons []comparison
	texts       texts
}

// texts are those of facts that the machine itself looks at.
type texts struct{ method, path, host, ip bool }

// Judge is what one loop needs to ask a condition. Only that loop touches it.
type Judge struct {
	machine vm.VM
	facts   facts
	c       *Condition
	x       *Exchange
	memory  [maxHost]byte // of the host
}

// NewCondition compiles an expression that was checked.
func NewCondition(text string) (*Condition, error) {
	found := &comparer{}
	options := []expr.Option{expr.Env(facts{}), expr.AsBool(), expr.DisableAllBuiltins(), expr.Patch(found)}
	for _, name := range [...]string{"len", "any", "all", "none", "one", "lower", "upper", "trim"} {
		options = append(options, expr.EnableBuiltin(name))
	}
	program, err := expr.Compile(text, options...)
	if err != nil {
		return nil, err
	}
	c := &Condition{program: program, comparisons: found.all}
	node := program.Node()
	ast.Walk(&node, &c.texts)
	return c, nil
}

// Visit is called for each node.
func (t *texts) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.IdentifierNode); ok {
		switch n.Value {
		case "method":
			t.method = true
		case "path":
			t.path = true
		case "host":
			t.host = true
		case "ip":
			t.ip = true
		}
	}
}

// Holds asks the condition. One that cannot be told, such as the first of no groups, is an error. x is not kept.
func (j *Judge) Holds(c *Condition, x *Exchange) (bool, error) {
	if j.facts.Claim == nil {
		j.connect()
	}
	f := &j.facts
	if who := x.Consumer; who != nil {
		f.Consumer = consumerFacts{who.Name, who.User, who.Tier, who.Tenant, who.KeyID, who.Groups, who.Roles, who.Tags}
	}
	if c.texts.method {
		f.Method = string(x.Request.MethodBytes())
	}
	if c.texts.path {
		f.Path = string(x.Request.Path)
	}
	if c.texts.host {
		f.Host = string(appendHost(j.memory[:0], HostOf(x.Request.Host())))
	}
	if c.texts.ip {
		f.IP = string(x.Client.Text)
	}
	f.Country, f.Scheme = x.Client.Country, x.Listener.Scheme
	j.c, j.x = c, x
	v, err := j.machine.Run(c.program, f)
	j.c, j.x, f.Consumer = nil, nil, consumerFacts{}
	f.Method, f.Path, f.Host, f.IP = "", "", "", ""
	if err != nil {
		return false, err
	}
	yes, _ := v.(bool)
	return yes, nil
}

// connect has the functions of an expression ask of the request that is judged.
func (j *Judge) connect() {
	j.facts.Claim = func(name string) string {
		v, _ := j.x.Claims.Value(name)
		return v
	}
	j.facts.Header = func(name string) string {
		v, _ := j.x.Request.Single(name)
		return string(v)
	}
	j.facts.Holds = func(i int) bool { return j.c.comparisons[i].holds(j.x, j.memory[:0]) }
	j.facts.Split = func(text, by string) []string {
		all := strings.SplitN(text, by, maxParts+1)
		if len(all) > maxParts {
			panic(errParts) // the machine makes an error of it
		}
		return all
	}
}

var errParts = errors.New("cannot split into so many parts")
