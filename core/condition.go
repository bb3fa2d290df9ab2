package core

import (
	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
)

// facts are what an expression of a condition can name. core/config checks expressions against the same names, and a test that they are.
type facts struct {
	Consumer consumerFacts       `expr:"consumer"`
	Method   string              `expr:"method"`
	Path     string              `expr:"path"`
	Host     string              `expr:"host"`    // without the port
	IP       string              `expr:"ip"`      // of the client, behind trusted proxies
	Country  string              `expr:"country"` // of the client, by a policy before this one; "": it is not known
	Scheme   string              `expr:"scheme"`
	Claim    func(string) string `expr:"claim"`  // of the verified token; "": it has none
	Header   func(string) string `expr:"header"` // the only line of that name; "": there is none, or several
}

// consumerFacts are empty for nobody.
type consumerFacts struct {
	Name   string   `expr:"name"`
	User   string   `expr:"user"`
	Tier   string   `expr:"tier"`
	Tenant string   `expr:"tenant"`
	Groups []string `expr:"groups"`
	Tags   []string `expr:"tags"`
}

// Condition is an expression over a request that is true or false, such as `consumer.tier == "gold" || method == "GET"`. It is immutable.
type Condition struct{ program *vm.Program }

// Judge is what one loop needs to ask a condition. Only that loop touches it.
type Judge struct {
	machine vm.VM
	facts   facts
	x       *Exchange
}

// NewCondition compiles an expression that was checked.
func NewCondition(text string) (*Condition, error) {
	options := []expr.Option{expr.Env(facts{}), expr.AsBool(), expr.DisableAllBuiltins()}
	for _, name := range [...]string{"len", "any", "all", "none", "one", "lower", "upper", "trim", "split"} {
		options = append(options, expr.EnableBuiltin(name))
	}
	program, err := expr.Compile(text, options...)
	if err != nil {
		return nil, err
	}
	return &Condition{program}, nil
}

// Holds asks the condition. One that cannot be told, such as the first of no groups, is an error. x is not kept.
func (j *Judge) Holds(c *Condition, x *Exchange) (bool, error) {
	if j.facts.Claim == nil {
		j.facts.Claim = func(name string) string {
			v, _ := j.x.Claims.Value(name)
			return v
		}
		j.facts.Header = func(name string) string {
			v, _ := j.x.Request.Single(name)
			return string(v)
		}
	}
	f := &j.facts
	f.Consumer = consumerFacts{}
	if who := x.Consumer; who != nil {
		f.Consumer = consumerFacts{who.Name, who.User, who.Tier, who.Tenant, who.Groups, who.Tags}
	}
	f.Method, f.Path, f.Host = string(x.Request.MethodBytes()), string(x.Request.Path), string(HostOf(x.Request.Host()))
	f.IP, f.Country, f.Scheme = string(x.Client.Text), x.Client.Country, x.Listener.Scheme
	j.x = x
	v, err := j.machine.Run(c.program, f)
	j.x, f.Consumer = nil, consumerFacts{}
	if err != nil {
		return false, err
	}
	yes, _ := v.(bool)
	return yes, nil
}
