package server

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holding is an upstream that tells of each request and answers when it is told to. A connection ends with its third answer.
type holding struct {
	net.Listener
	asked, answer chan struct{}
}

func newHolding(t *testing.T) *holding {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h := &holding{l, make(chan struct{}), make(chan struct{})}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.serve(c)
		}
	}()
	return h
}

func (h *holding) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for _, more := range []string{"", "", "Connection: close\r\n"} {
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			return
		}
		h.asked <- struct{}{}
		<-h.answer
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+more+"Content-Length: 4\r\n\r\npong")
	}
}

// port is that of an address.
func port(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	n, failed := strconv.Atoi(text)
	if err != nil || failed != nil {
		t.Fatalf("%q has no port", addr)
	}
	return n
}

// quickAcks are TCP_QUICKACK of the connections of this process that lead to a port, of those from another if that is not 0.
func quickAcks(t *testing.T, to, from int) (all []int) {
	t.Helper()
	for _, fd := range descriptors(t, func(fd int) bool {
		peer, err := unix.Getpeername(fd)
		own, failed := unix.Getsockname(fd)
		return err == nil && failed == nil && portNumber(peer) == to && (from == 0 || portNumber(own) == from)
	}) {
		quick, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK)
		if err != nil {
			t.Error(err)
		}
		all = append(all, quick)
	}
	return all
}

// TestQuickAckOfConnections asks the kernel about connections that are open: accepted ones and those to upstreams, of a fresh start and
// after reloads. Off is seen where the kernel would have it on: before the first answer. On is seen where the kernel would have it off: in an
// exchange after the first answer, for as long as an acknowledgement may wait.
func TestQuickAckOfConnections(t *testing.T) {
	up := newHolding(t)
	write := func(mode string) string {
		return `listeners: { http: { bind: "127.0.0.1:0", socket: { quickack: ` + mode + ` } } }
upstreams: { a: { endpoints: ["` + up.Addr().String() + `"], socket: { quickack: ` + mode + ` } } }
routes: [{ match: "*", to: a }]
`
	}
	mode, values := "off", map[string]int{"off": 0, "on": 1}
	g := run(t, write(mode))
	f := func(when string) {
		t.Helper()
		client := connect(t, g.addr)
		accepted := func() []int { return quickAcks(t, port(t, client.LocalAddr().String()), port(t, g.addr)) }
		dialled := func() []int { return quickAcks(t, port(t, up.Addr().String()), 0) }
		is := func(what string, got []int) {
			t.Helper()
			if len(got) != 1 || got[0] != values[mode] {
				t.Errorf("%s, quickack %s: %s: %v", when, mode, what, got)
			}
		}
		g.eventually("no connection to the upstream is left", func() bool { return len(dialled()) == 0 })
		g.eventually("the connection is accepted", func() bool { return len(accepted()) == 1 })
		is("accepted", accepted())
		for i := range 3 {
			done := make(chan error, 1)
			go func() { done <- pinged(client) }()
			select {
			case <-up.asked:
			case <-time.After(patience):
				t.Fatal("the upstream is not asked")
			}
			switch {
			case i == 0:
				is("dialled", dialled())
			case mode == "on":
				is("accepted, at a request after the first", accepted())
			}
			up.answer <- struct{}{}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if i == 1 && mode == "on" {
				is("dialled, at an answer after the first", dialled())
			}
		}
	}
	f("fresh start")
	for _, mode = range []string{"on", "off"} {
		g.write(write(mode))
		if err := g.admin.Reload(true); err != nil {
			t.Fatal(err)
		}
		f("reload")
	}
	g.stop()
	mode = "on"
	g = run(t, write(mode))
	f("fresh start")
}
