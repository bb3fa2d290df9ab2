package core

// Refusal is how a policy answers in the place of the action. Immutable.
type Refusal struct {
	contentType, body string
	lines             []refusalLine
}

type refusalLine struct {
	id          FieldID
	name, value string
}

// NewRefusal makes one. Without a body the answer is that of Fail: the reason in JSON. Names and values must be fit for a head.
func NewRefusal(body string, lines [][2]string) *Refusal {
	r := &Refusal{body: body}
	if body != "" {
		r.contentType = "text/plain; charset=utf-8"
	}
	for _, l := range lines {
		line := refusalLine{LookupField([]byte(l[0])), l[0], l[1]}
		if line.id == FieldContentType && body != "" {
			r.contentType = l[1]
		} else if line.id != FieldContentType {
			r.lines = append(r.lines, line)
		}
	}
	return r
}

// Answer fails x with err, whose status it sends. A gRPC call gets its status as always, and the lines.
func (r *Refusal) Answer(x *Exchange, err *Error) {
	x.Fail(err)
	if r.body != "" && !x.Request.GRPC {
		x.Answer(err.Status, r.contentType, r.body)
	}
	for i := range r.lines {
		line := x.Response.Begin(r.lines[i].name)
		line.String(r.lines[i].value)
		line.End(r.lines[i].id)
	}
}
