package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// HeaderLine is a line of an answer.
type HeaderLine struct{ Name, Value string }

// RespondSpec is an answer that needs no upstream.
type RespondSpec struct {
	Status      int    // 200..599
	ContentType string // "": none; a Content-Type among Headers goes before it
	Body        string
	Headers     []HeaderLine
}

// Respond is a core.Action that gives a fixed answer. Immutable.
type Respond struct {
	status      int
	contentType string
	body        string
	lines       []answerLine
}

// answerLine is a line whose name has been looked up.
type answerLine struct {
	id          core.FieldID
	name, value string
}

// NewRespond checks s. Fields that frame a message or concern one connection only are refused.
func NewRespond(s RespondSpec) (*Respond, error) {
	a := &Respond{status: s.Status, contentType: s.ContentType, body: s.Body}
	if s.Status < 200 || s.Status > 599 {
		return nil, fmt.Errorf("cannot respond with status %d", s.Status)
	}
	if s.Body != "" && (s.Status == 204 || s.Status == 205 || s.Status == 304) {
		return nil, fmt.Errorf("cannot respond with a body: status %d has none", s.Status)
	}
	for _, h := range s.Headers {
		if err := checkLine(h); err != nil {
			return nil, fmt.Errorf("cannot respond with header %q: %w", h.Name, err)
		}
		line := answerLine{core.LookupField([]byte(h.Name)), h.Name, strings.Trim(h.Value, " \t")}
		if line.id == core.FieldContentType {
			a.contentType = line.value
			continue
		}
		a.lines = append(a.lines, line)
	}
	if err := checkLine(HeaderLine{"Content-Type", a.contentType}); err != nil {
		return nil, fmt.Errorf("cannot respond with content type: %w", err)
	}
	return a, nil
}

// connectionFields are what the gateway itself says of an answer (RFC 9110, 7.6.1; RFC 9112, 6).
var connectionFields = []string{
	"connection", "content-length", "date", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

func checkLine(h HeaderLine) error {
	if !isToken(h.Name) {
		return errors.New("the name is no token")
	}
	if slices.Contains(connectionFields, strings.ToLower(h.Name)) {
		return errors.New("the gateway writes it by itself")
	}
	for i := range len(h.Value) {
		if c := h.Value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("the value holds a control byte")
		}
	}
	return nil
}

// Answer implements core.Action.
func (a *Respond) Answer(x *core.Exchange) {
	x.Answer(a.status, a.contentType, a.body)
	for i := range a.lines {
		line := x.Response.Begin(a.lines[i].name)
		line.String(a.lines[i].value)
		line.End(a.lines[i].id)
	}
}
