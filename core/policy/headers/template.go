package headers

import (
	"errors"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// template is text with variables in it.
type template []part

// part is text, or a variable.
type part struct {
	text     string
	variable func(w *core.Line, x *core.Exchange)
}

func (t template) append(w *core.Line, x *core.Exchange) {
	for i := range t {
		if t[i].variable != nil {
			t[i].variable(w, x)
		} else {
			w.String(t[i].text)
		}
	}
}

// variables are what values may refer to. What is not known is empty.
func variables() map[string]func(w *core.Line, x *core.Exchange) {
	return map[string]func(w *core.Line, x *core.Exchange){
		"client_ip":      func(w *core.Line, x *core.Exchange) { w.Bytes(x.Client.Text) },
		"client_country": func(w *core.Line, x *core.Exchange) { w.String(x.Client.Country) },
		"peer_ip":        func(w *core.Line, x *core.Exchange) { w.Bytes(x.Client.Via) },
		"request_id":     func(w *core.Line, x *core.Exchange) { w.Bytes(x.RequestID) },
		"host":           func(w *core.Line, x *core.Exchange) { w.Bytes(x.Request.Host()) },
		"method":         func(w *core.Line, x *core.Exchange) { w.Bytes(x.Request.MethodBytes()) },
		"path":           func(w *core.Line, x *core.Exchange) { w.Bytes(x.Request.Path) },
		"query":          func(w *core.Line, x *core.Exchange) { w.Bytes(x.Request.Query) },
		"scheme":         func(w *core.Line, x *core.Exchange) { w.String(x.Listener.Scheme) },
		"listener":       func(w *core.Line, x *core.Exchange) { w.String(x.Listener.Name) },
		"route":          func(w *core.Line, x *core.Exchange) { w.String(x.Route.Name) },
		"server_name": func(w *core.Line, x *core.Exchange) {
			if t := x.Client.TLS; t != nil {
				w.String(t.ServerName)
			}
		},
	}
}

func parse(value string) (t template, err error) {
	known := variables()
	text := ""
	flush := func() {
		if text != "" {
			t = append(t, part{text: text})
			text = ""
		}
	}
	for value != "" {
		before, rest, found := strings.Cut(value, "{")
		text += before
		if value = rest; !found {
			break
		}
		if after, doubled := strings.CutPrefix(rest, "{"); doubled {
			text, value = text+"{", after
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		v := known[name]
		if !closed || v == nil {
			return nil, errors.New("cannot use a header's value: {" + name + "} is no variable")
		}
		flush()
		t, value = append(t, part{variable: v}), after
	}
	flush()
	return t, nil
}
