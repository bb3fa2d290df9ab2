// Package headers is the policy that changes the fields of requests before they go to an upstream, and of answers before they go to
// the client.
package headers

import "github.com/sluice-gateway/sluice/core"

// Changes are made in the order in which they stand here. The names and values of lines have been checked: no field that frames a
// message or belongs to its connection is among them.
type Changes struct {
	Remove  []string
	Set     []Line // in the place of whatever has the name
	Add     []Line // beside it
	Default []Line // unless something has the name
}

// Line is a field line whose value may hold variables, such as {client_ip}; {{ stands for a brace.
type Line struct{ Name, Value string }

// Policy is the compiled changes. It is immutable.
type Policy struct{ request, response changes }

// New compiles the changes to both messages.
func New(request, response Changes) (*Policy, error) {
	p := &Policy{}
	var err error
	if p.request, err = compile(request); err != nil {
		return nil, err
	}
	p.response, err = compile(response)
	return p, err
}

type changes struct {
	remove []string
	lines  []line
}

type line struct {
	name  string
	id    core.FieldID
	how   how
	value template
}

// how a line goes into a message.
type how uint8

const (
	set how = iota
	add
	unlessThere
)

func compile(c Changes) (out changes, err error) {
	out.remove = c.Remove
	for _, l := range []struct {
		lines []Line
		how   how
	}{{c.Set, set}, {c.Add, add}, {c.Default, unlessThere}} {
		for _, one := range l.lines {
			value, err := parse(one.Value)
			if err != nil {
				return out, err
			}
			out.lines = append(out.lines, line{one.Name, core.LookupField([]byte(one.Name)), l.how, value})
		}
	}
	return out, nil
}

// OnRequest changes the request.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	p.request.apply(x, &x.Request)
	return core.Continue
}

// OnResponse changes the answer, of whoever it is.
func (p *Policy) OnResponse(x *core.Exchange) { p.response.apply(x, &x.Response) }

func (c *changes) apply(x *core.Exchange, m *core.Message) {
	for _, name := range c.remove {
		m.RemoveName(name)
	}
	for i := range c.lines {
		l := &c.lines[i]
		if l.how == unlessThere {
			if _, there := m.Lookup(l.name); there {
				continue
			}
		}
		w := m.Begin(l.name)
		l.value.append(&w, x)
		if l.how == set { // now: the value may come from what goes
			m.RemoveName(l.name)
		}
		w.End(l.id)
	}
}
