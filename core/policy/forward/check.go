package forward

import (
	"net/netip"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Attributes are what a service that is asked in the way of ext_authz learns of a request besides its fields.
type Attributes struct {
	Source, Destination netip.AddrPort // zero: of a unix socket. A client behind trusted proxies has port 0
	Principal           string         // a name of the client's verified certificate: a URI, else another, else its subject; "": it showed none
	ServerName          string         // that the client asked for; "": none
	Consumer            string         // "": nobody's
	ID                  string         // of the request; "": it has none
	Scheme, Host        string
	Target              string // path and query, as they are matched and forwarded
	Protocol            string // HTTP/1.0, HTTP/1.1 or HTTP/2
	Size                int64  // of the body; -1: not known
	Wall                int64  // nanoseconds on the wall clock
}

// Changes are what such a service wants of a request that passes, and of its answer.
type Changes struct {
	Set         []Line // fields in the place of the request's
	Append      []Line // fields beside them
	Remove      []string
	Response    []ResponseLine
	SetQuery    []Line // arguments in the place of those of the same name
	RemoveQuery []string
}

// ResponseLine is a field for the client.
type ResponseLine struct {
	Line
	Where Where
}

// Where says how a field comes into an answer that may have others of its name.
type Where uint8

const (
	Instead   Where = iota // in their place; a cookie stands beside others
	Beside                 // in addition
	IfAbsent               // only if there is none
	IfPresent              // in their place, if there is one
)

// change is Changes made ready.
type change struct {
	set, beside []line
	remove      []string
	setQuery    []Line
	removeQuery []string
	response    []line
	where       []Where // of each of response
	size        int
}

// attributes are those of x.
func attributes(x *core.Exchange) *Attributes {
	m := &x.Request
	a := &Attributes{Source: netip.AddrPortFrom(x.Client.Addr, 0), ID: string(x.RequestID), Scheme: x.Listener.Scheme, Host: string(m.Host()),
		Target: target(m), Protocol: "HTTP/" + m.Version(), Size: m.ContentLength, Wall: x.Worker.Loop.Wall()}
	if x.Client.Addr == x.Client.Peer.Addr() {
		a.Source = x.Client.Peer
	}
	if x.Client.Conn != nil {
		a.Destination = x.Client.Conn.Local()
	}
	if x.Consumer != nil {
		a.Consumer = x.Consumer.Name
	}
	if t := x.Client.TLS; t != nil {
		a.ServerName = t.ServerName
		if t.Identity != nil {
			a.Principal = principal(t.Identity)
		}
	}
	return a
}

func principal(id *core.Identity) string {
	for _, name := range id.Names {
		if strings.Contains(name, "://") {
			return name
		}
	}
	if len(id.Names) > 0 {
		return id.Names[0]
	}
	return id.Subject
}

// target is what is matched, and what the upstream gets but for a route's changes: there is no second reading of a path.
func target(m *core.Message) string {
	if m.Query == nil {
		return string(m.Path)
	}
	return string(m.Path) + "?" + string(m.Query)
}

// granted judges an answer of ext_authz that lets the request pass. nil: it is none.
func (p *Policy) granted(c *Changes) *change {
	if len(c.Set)+len(c.Append)+len(c.Response) > maxLines || len(c.Remove)+len(c.RemoveQuery)+len(c.SetQuery) > maxLines {
		return nil
	}
	g := &change{}
	lines := func(from []Line, to *[]line) bool {
		for _, l := range from {
			if p.settable(l.Name) {
				*to = append(*to, line{l, core.LookupField([]byte(l.Name))})
			}
			g.size += len(l.Name) + len(l.Value) + lineCost
		}
		return Fit(from)
	}
	if !lines(c.Set, &g.set) || !lines(c.Append, &g.beside) {
		return nil
	}
	for _, l := range c.Response {
		id := core.LookupField([]byte(l.Name))
		if !Fit([]Line{l.Line}) {
			return nil
		}
		g.size += len(l.Name) + len(l.Value) + lineCost
		if core.Fields(id)&connectionFields == 0 || id == core.FieldOther {
			g.response, g.where = append(g.response, line{l.Line, id}), append(g.where, l.Where)
		}
	}
	for _, name := range c.Remove {
		if g.size += len(name) + lineCost; p.settable(name) {
			g.remove = append(g.remove, name)
		}
	}
	for _, name := range c.RemoveQuery {
		g.size += len(name) + lineCost
	}
	for _, q := range c.SetQuery {
		g.size += len(q.Name) + len(q.Value) + lineCost
	}
	g.setQuery, g.removeQuery = c.SetQuery, c.RemoveQuery
	if g.size > maxLineBytes+3*maxLines*lineCost {
		return nil
	}
	return g
}

// lineCost is about what a field costs in memory besides its bytes.
const lineCost = 64

// settable says whether a service may change a field of the request: none that says where a message ends, whom it is for, or what the
// gateway itself tells upstreams; and where Copy names some, only those.
func (p *Policy) settable(name string) bool {
	id, like := core.LookupField([]byte(name)), folded([]byte(name))
	switch {
	case id != core.FieldOther && core.Fields(id)&(unsent|1<<core.FieldVia) != 0:
		return false
	case id == core.FieldOther && core.Resembles([]byte(name)) != core.ResemblesNone, strings.HasPrefix(like, "x-forwarded-"), like == "x-consumer-name", like == "client-cert", like == "client-cert-chain":
		return false
	}
	return p.spec.Copy == nil || listed(p.spec.Copy, name)
}

// apply changes the request. What is set comes from the service alone, in whatever spelling a client sends the same fields.
func (g *change) apply(m *core.Message) {
	for _, name := range g.remove {
		m.RemoveLike(name)
	}
	for i := range g.set {
		m.RemoveLike(g.set[i].Name)
	}
	for _, list := range [][]line{g.set, g.beside} {
		for i := range list {
			addLine(&m.Header, &list[i])
		}
	}
	for _, name := range g.removeQuery {
		m.RemoveArgument(name)
	}
	for i := range g.setQuery {
		m.RemoveArgument(g.setQuery[i].Name)
	}
	for i := range g.setQuery {
		m.AddArgument(g.setQuery[i].Name, g.setQuery[i].Value)
	}
}

// answer changes the response.
func (g *change) answer(m *core.Message) {
	for i := range g.response {
		l := &g.response[i]
		_, has := m.Lookup(l.Name)
		switch g.where[i] {
		case Instead:
			if l.id != core.FieldSetCookie {
				m.RemoveName(l.Name)
			}
		case IfAbsent:
			if has {
				continue
			}
		case IfPresent:
			if !has {
				continue
			}
			m.RemoveName(l.Name)
		}
		addLine(&m.Header, l)
	}
}
