package hmac

import (
	"bytes"
	"strings"

	"github.com/dunglas/httpsfv"
	"github.com/sluice-gateway/sluice/core"
)

// baseOf is what was signed (RFC 9421, 2.5), and the names of its components. ok is false where one is not there, is given twice, or has a
// parameter that is not known here.
func baseOf(x *core.Exchange, input *httpsfv.InnerList) (base []byte, covered []string, ok bool) {
	seen := map[string]bool{}
	for i := range input.Items {
		item := &input.Items[i]
		name, isText := item.Value.(string)
		id, err := httpsfv.Marshal(*item)
		if !isText || err != nil || seen[id] {
			return nil, nil, false
		}
		seen[id] = true
		value, ok := component(x, name, item.Params)
		if !ok {
			return nil, nil, false
		}
		base = append(append(append(append(base, id...), ": "...), value...), '\n')
		if len(item.Params.Names()) == 0 {
			covered = append(covered, name)
		}
	}
	params, err := httpsfv.Marshal(*input)
	if err != nil {
		return nil, nil, false
	}
	return append(append(base, `"@signature-params": `...), params...), covered, true
}

// component is the value of a component.
func component(x *core.Exchange, name string, params *httpsfv.Params) (string, bool) {
	m := &x.Request
	if name == "@query-param" {
		v, _ := params.Get("name")
		of, ok := v.(string)
		if !ok || len(params.Names()) != 1 {
			return "", false
		}
		return argument(query(m), of)
	}
	if len(params.Names()) > 0 {
		return "", false
	}
	switch name {
	case "@method":
		return string(m.MethodBytes()), true
	case "@target-uri":
		return x.Listener.Scheme + "://" + authority(x) + path(m) + query(m), true
	case "@authority":
		return authority(x), true
	case "@scheme":
		return x.Listener.Scheme, true
	case "@request-target":
		return string(m.Bytes(m.Target)), true
	case "@path":
		return path(m), true
	case "@query":
		if q := query(m); q != "" {
			return q, true
		}
		return "?", true
	}
	return field(m, name)
}

// field joins the lines of a field (RFC 9421, 2.1).
func field(m *core.Message, name string) (string, bool) {
	if !core.IsToken([]byte(name)) || strings.ToLower(name) != name {
		return "", false
	}
	all := lines(m, name)
	for i := range all {
		all[i] = strings.Trim(all[i], " \t")
	}
	return strings.Join(all, ", "), len(all) > 0
}

// authority is the host in lower case, without the scheme's own port (RFC 9421, 2.2.3).
func authority(x *core.Exchange) string {
	host := strings.ToLower(string(x.Request.Host()))
	if x.Listener.Scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// target is the path and the query as the client wrote them, with the "?".
func target(m *core.Message) (path, query []byte) {
	t := m.Bytes(m.Target)
	if len(t) > 0 && t[0] != '/' {
		if _, rest, absolute := bytes.Cut(t, []byte("://")); absolute {
			t = bytes.TrimLeftFunc(rest, func(r rune) bool { return r != '/' && r != '?' })
		}
	}
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		return t[:i], t[i:]
	}
	return t, nil
}

func path(m *core.Message) string {
	if p, _ := target(m); len(p) > 0 {
		return string(p)
	}
	return "/"
}

func query(m *core.Message) string {
	_, q := target(m)
	return string(q)
}

// argument is the value of an argument of the query, encoded anew, so that there is one way to write it (RFC 9421, 2.2.8). One that stands
// there twice cannot be signed.
func argument(query, name string) (value string, ok bool) {
	for part := range strings.SplitSeq(strings.TrimPrefix(query, "?"), "&") {
		k, v, _ := strings.Cut(part, "=")
		if encoded(k) != name {
			continue
		}
		if ok {
			return "", false
		}
		value, ok = encoded(v), true
	}
	return value, ok
}

// encoded decodes what is written as forms are, and encodes it with percent signs.
func encoded(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range core.AppendForm(nil, []byte(s)) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '*', c == '-', c == '.', c == '_':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
