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

// NewRefusal makes one of errors with a status and a reason. Without a body the answer is that of Fail, the reason in JSON, but it
// costs no memory. Names and values must be fit for a head.
func NewRefusal(status int, reason, body string, lines [][2]string) *Refusal {
	r := &Refusal{contentType: "text/plain; charset=utf-8", body: body}
	if body == "" {
		r.contentType, r.body = "application/json", failureText(&Error{Status: status, Reason: reason})
	}
	for _, l := range lines {
		line := refusalLine{LookupField([]byte(l[0])), l[0], l[1]}
		switch {
		case line.id != FieldContentType:
			r.lines = append(r.lines, line)
		case body != "":
			r.contentType = l[1]
		}
	}
	return r
}

// Answer fails x with err, whose status it sends. A gRPC call gets its status as always, and the lines.
func (r *Refusal) Answer(x *Exchange, err *Error) {
	if x.Request.GRPC {
		x.Fail(err)
	} else {
		x.Err = err
		x.Answer(err.Status, r.contentType, r.body)
	}
	for i := range r.lines {
		line := x.Response.Begin(r.lines[i].name)
		line.String(r.lines[i].value)
		line.End(r.lines[i].id)
	}
}
