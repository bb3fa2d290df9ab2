package core

import (
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
)

func conditionExchange(method, path string, who *Consumer) *Exchange {
	x := &Exchange{Listener: &Listener{Scheme: "https"}, Consumer: who}
	head := method + "a.example:8080"
	x.Request.Adopt([]byte(head))
	x.Request.MethodText = Span{End: uint32(len(method))}
	x.Request.Authority = Span{Start: uint32(len(method)), End: uint32(len(head))}
	x.Request.Path = []byte(path)
	x.Request.AddName("X-Tenant", []byte("red"))
	x.Client.Text = []byte("192.0.2.1")
	x.Claims = NewClaimTexts([]string{"sub"}, []string{"ann"})
	return x
}

// plainCondition has the machine do all.
func plainCondition(t *testing.T, text string) *Condition {
	t.Helper()
	program, err := expr.Compile(text, expr.Env(facts{}), expr.AsBool())
	if err != nil {
		t.Fatal(err)
	}
	c := &Condition{program: program}
	node := program.Node()
	ast.Walk(&node, &c.texts)
	return c
}

// TestConditionComparisons: a comparison says what the machine would, of each thing and in each way.
func TestConditionComparisons(t *testing.T) {
	requests := []*Exchange{
		conditionExchange("GET", "/a/b", &Consumer{Name: "acme", User: "ann", Tier: "gold", Tenant: "red", Groups: []string{"x", "gold"}, Roles: []string{"ann", "acme"}, Tags: []string{"red"}}),
		conditionExchange("POST", "/gold/ann", nil),
		conditionExchange("ann", "red", &Consumer{Name: "192.0.2.1"}),
	}
	var j Judge
	yes := 0
	for _, of := range []string{"method", "path", "host", "ip", "scheme", "consumer.name", "consumer.user", "consumer.tier", "consumer.tenant", `claim("sub")`, `claim("x")`, `header("x-tenant")`, `header("X-None")`} {
		for _, with := range []string{"GET", "/a", "/b", "ann", "gold", "red", "a.example", "192.0.2.1", "https", "acme", "", "^.n+$"} {
			for _, how := range []string{"OF == 'IT'", "OF != 'IT'", "'IT' == OF", "'IT' != OF", "OF in ['IT', 'x']", "OF not in ['IT']", "OF contains 'IT'", "OF startsWith 'IT'", "OF endsWith 'IT'", "OF matches 'IT'",
				"not (OF matches 'IT')", "OF == 'IT' ? OF != 'x' : OF contains 'IT'", "'IT' in consumer.groups", "'IT' in consumer.roles", "'IT' in consumer.tags", "'IT' not in consumer.groups || OF == 'IT'", "'IT' in [OF]", "len(OF) > 3 && OF == 'IT'"} {
				text := strings.NewReplacer("OF", of, "IT", with).Replace(how)
				c, err := NewCondition(text)
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				plain := plainCondition(t, text)
				for i, x := range requests {
					got, err := j.Holds(c, x)
					want, also := j.Holds(plain, x)
					if got != want || err != nil || also != nil {
						t.Errorf("%s of request %d: %v %v, want %v %v", text, i, got, err, want, also)
					}
					if got {
						yes++
					}
				}
			}
		}
	}
	if yes == 0 {
		t.Error("nothing holds")
	}
}

// TestConditionHost: a client that writes the host of its route in another way is at the same host.
func TestConditionHost(t *testing.T) {
	var j Judge
	for _, host := range []string{"a.example", "A.Example", "a.example.", "A.EXAMPLE.:8080", "a.example:443"} {
		x := conditionExchange("GET", "/", nil)
		x.Request.Adopt([]byte("GET" + host))
		x.Request.Authority.End = uint32(len("GET" + host))
		for text, want := range map[string]bool{
			`host == "a.example"`: true, `host != "a.example"`: false, `host in ["a.example"]`: true, `host matches "^a[.]example$"`: true,
			`not (host == "A.example")`: false, `any(["a.example"], # == host)`: true, `host endsWith ".example"`: true,
		} {
			c, err := NewCondition(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := j.Holds(c, x); got != want || err != nil {
				t.Errorf("%s of %s: %v %v", text, host, got, err)
			}
		}
	}
}

// TestConditionAllocates counts what an answer costs on the heap.
func TestConditionAllocates(t *testing.T) {
	x := conditionExchange("GET", "/a/b", &Consumer{Name: "acme", Tier: "gold", Groups: []string{"x", "partners"}, Roles: []string{"editor"}})
	f := func(text string, want float64) {
		t.Helper()
		c, err := NewCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		var j Judge
		got := testing.AllocsPerRun(100, func() {
			if yes, err := j.Holds(c, x); err != nil || !yes {
				t.Errorf("%s: %v %v", text, yes, err)
			}
		})
		if got > want {
			t.Errorf("%s allocates %v times, want %v", text, got, want)
		}
	}
	f(`consumer.tier == "gold" and method in ["GET", "HEAD"] and path startsWith "/a"`, 0)
	f(`"partners" in consumer.groups and "editor" in consumer.roles and claim("sub") == "ann" and header("X-Tenant") != "blue"`, 0)
	f(`path matches "^/a/[b-z]$" ? host == "a.example" : ip == "192.0.2.1"`, 0)
	f(`not (scheme == "http") && (consumer.name endsWith "e" || host contains "x")`, 0)
	f(`len(path) > 3`, 2)
	f(`lower(method) == "get"`, 4)
	f(`any(consumer.groups, # == "partners")`, 3)
	f(`one(split(path, "/"), # == "a")`, 8)
}

// TestConditionParts: a client does not say how much is gone through.
func TestConditionParts(t *testing.T) {
	c, err := NewCondition(`none(split(path, "/"), # == "x")`)
	if err != nil {
		t.Fatal(err)
	}
	var j Judge
	f := func(parts int, want bool) {
		t.Helper()
		yes, err := j.Holds(c, conditionExchange("GET", strings.Repeat("/", parts-1), nil))
		if yes != want || (err == nil) != want {
			t.Errorf("%d parts: %v %v", parts, yes, err)
		}
	}
	f(maxParts, true)
	f(maxParts+1, false)
	f(3, true)
}
