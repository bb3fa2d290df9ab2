package core

import (
	"bytes"
	"testing"
)

// A copy of a request says what the request said, edits included, and goes on saying so whatever becomes of it.
func TestCopyRequest(t *testing.T) {
	head := []byte("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-Old: 1\r\nX-Kept: 2\r\n\r\n")
	var m, c Message
	m.Reset()
	field := func(name, value string) {
		at := uint32(bytes.Index(head, []byte(name)))
		v := at + uint32(len(name)) + 2
		end := v + uint32(len(value))
		m.Receive(Field{Name: Span{at, at + uint32(len(name))}, Value: Span{v, end}, End: end + 2, ID: LookupField([]byte(name))})
	}
	field("Host", "a.example")
	field("X-Old", "1")
	field("X-Kept", "2")
	m.Adopt(head)
	m.Method, m.MethodText, m.HostSpan = MethodGet, Span{0, 3}, m.fields[0].Value
	m.Query = head[7:10]
	m.SetPath("/new", head[4:6])
	m.RemoveName("X-Old")
	m.AddName("X-New", []byte("3"))
	m.Chunked, m.GRPC, m.HTTP2 = true, true, true
	m.Body, m.Trailer, m.Protocol = &localBody{}, []byte("X: y\r\n"), []byte("websocket")

	c.Reset()
	c.AddName("X-Before", []byte("of another request"))
	c.SetPath("/before", nil)
	c.CopyRequest(&m)
	clear(head)
	m.Reset()
	m.AddName("X-After", []byte("of another request, too"))
	m.SetPath("/after", nil)

	if got := string(c.AppendLines(nil)); got != "Host: a.example\r\nX-Kept: 2\r\nX-New: 3\r\n" {
		t.Errorf("lines %q", got)
	}
	if string(c.MethodBytes()) != "GET" || string(c.Path) != "/new/a" || string(c.Query) != "b=c" || string(c.Host()) != "a.example" {
		t.Errorf("%s %s?%s of %s", c.MethodBytes(), c.Path, c.Query, c.Host())
	}
	if !c.Chunked || !c.GRPC || !c.HTTP2 || c.Body != nil || c.Trailer != nil || c.Protocol != nil {
		t.Errorf("%+v", c)
	}
	c.SetPath("/x", nil)
	if string(c.Query) != "b=c" {
		t.Errorf("the query became %q with another path", c.Query)
	}
	m.Reset()
	m.Path, m.Query = []byte("/"), nil
	if c.CopyRequest(&m); c.Query != nil {
		t.Error("a query came from nowhere")
	}
	m.Query = []byte{}
	if c.CopyRequest(&m); c.Query == nil {
		t.Error("an empty query was lost")
	}
}
