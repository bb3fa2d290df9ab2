package compile

import (
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
)

// TestServiceEnds asks a service by policies that differ in how they know it: each has a connection of its own, which a configuration that
// says the same keeps, and which ends with the last that has the policy.
func TestServiceEnds(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	b := newBench(t)
	with := func(tls ...string) string {
		text := "routes:\n"
		for i, s := range tls {
			text += fmt.Sprintf("  - { match: /%d, use: [{ ext_authz: { url: \"grpcs://%s\"%s } }], respond: {} }\n", i, ln.Addr(), s)
		}
		return text
	}
	first, second := "", ", tls: { server_name: else.test }"
	c := b.apply(with(first, second, second))
	if len(c.services) != 2 {
		t.Fatalf("%d clients, want one for each way to know the service", len(c.services))
	}
	links := map[*link]bool{}
	for _, s := range c.services {
		links[s.link] = true
		s.link.connect(t)
	}
	again := b.apply(with(second, first))
	for _, s := range again.services {
		if !links[s.link] {
			t.Error("a service of which nothing has changed has another client")
		}
	}
	b.apply("routes: [{ match: /*, respond: {} }]\n")
	for l := range links {
		if l.conn != nil {
			t.Errorf("a connection that nobody can use is kept: %s", l.conn.GetState())
		}
	}
}

// connect has the link begin to connect.
func (l *link) connect(t *testing.T) {
	t.Helper()
	if err := l.use(func(c *grpc.ClientConn) error { c.Connect(); return nil }); err != nil {
		t.Fatal(err)
	}
}
