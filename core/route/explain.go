package route

import (
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Candidate is a rule whose host and path a request meets, a regular expression's path aside.
type Candidate struct {
	Rule     int // index in the list given to New
	Route    *core.Route
	Priority int
	Host     string // the rule's class: exact, wildcard or any
	Path     string // the rule's class: exact, prefix, regex or any
	Refused  string // the condition that does not hold; "" where all do
}

// maxCandidates bounds what Explain gives.
const maxCandidates = 1000

// Explain gives the candidates in the order in which Match considers them. The first that is not refused is the route; those
// after it are less specific, and not looked at by Match. It may be called from any goroutine that owns x, and allocates.
func (t *Table) Explain(x *core.Exchange) []Candidate {
	var name [maxHostBytes]byte
	tr := trace{}
	s := search{table: t, x: x, path: x.Request.Path, host: requestHost(&name, x.Request.Host()), trace: &tr}
	s.run()
	return tr.candidates
}

// trace is where a search is written down.
type trace struct {
	candidates []Candidate
	priority   int
	host       hostClass
}

// add notes a rule that was tried; it is false when that is enough.
func (tr *trace) add(r *rule, kind PathKind, why refusal) bool {
	tr.candidates = append(tr.candidates, Candidate{
		Rule:     int(r.source),
		Route:    r.target,
		Priority: tr.priority,
		Host:     tr.host.String(),
		Path:     [...]string{"any", "exact", "prefix", "regex"}[kind],
		Refused:  r.explain(why),
	})
	return len(tr.candidates) < maxCandidates
}

// explain says of a refusal what was asked for. What the request has instead is not repeated: it may be a secret.
func (r *rule) explain(why refusal) string {
	c := r.when
	switch why.kind {
	case refusedMethod:
		return "the method is not one of the rule's"
	case refusedListener:
		return "the listener is not " + strings.Join(c.listeners, " or ")
	case refusedClient:
		var all []string
		for _, p := range c.clients {
			all = append(all, p.String())
		}
		return "the client is not in " + strings.Join(all, " or ")
	case refusedHeader:
		return "header " + c.headers[why.index].explain()
	case refusedType:
		return "the content type is not one of the rule's"
	case refusedCookie:
		return "cookie " + c.cookies[why.index].explain()
	case refusedQuery:
		return "query argument " + c.query[why.index].explain()
	case refusedPath:
		return fmt.Sprintf("the path does not match %q", c.path)
	}
	return ""
}

func (f *Field) explain() string {
	switch f.Op {
	case FieldPresent:
		return fmt.Sprintf("%q is missing", f.Name)
	case FieldAbsent:
		return fmt.Sprintf("%q is there", f.Name)
	case FieldRegex:
		return fmt.Sprintf("%q does not match %q", f.Name, f.Regex)
	}
	return fmt.Sprintf("%q is not %q", f.Name, f.Value)
}
