package compile

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/lb"
)

// An address that a name comes to resolve to is asked, and gets nothing before it has passed; one that it resolves to no longer
// is not asked any more.
func TestChecksOfResolvedAddresses(t *testing.T) {
	asked, answer := make(chan string, 1000), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.Context().Value(http.LocalAddrContextKey).(net.Addr).String():
		default: // nobody counts
		}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	}))
	_ = server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp4", "0.0.0.0:0"); err != nil { // all of 127.0.0.0/8
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	n := newNameServer(t, addressRecords("moves.example.", 1, "127.0.0.1")...)
	b := newBench(t)
	c := b.apply("upstreams: { a: { endpoints: [\"moves.example:" + port + "\"], resolve: { every: 1s, servers: [\"" + n.at + "\"] }, health: { path: /, interval: 100ms, initial: unhealthy, unhealthy: 1 } } }\n" +
		"routes: [{ match: \"/*\", to: a }]\n")
	u := c.Upstreams[0]
	if flags := u.Endpoints()[0].Load.Flags(); flags != lb.Unchecked {
		t.Errorf("a new endpoint has the flags %b", flags)
	}
	close(answer)
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: endpoints %q\n%s", what, endpointsOf(c, "a"), b.log.String())
			}
		}
	}
	await("the first", func() bool { return u.Endpoints()[0].Load.Available() })
	n.set(addressRecords("moves.example.", 1, "127.0.0.2", "127.0.0.3")...)
	await("others", func() bool {
		all := u.Endpoints()
		return len(all) == 2 && all[0].Load.Available() && all[1].Load.Available()
	})
	for len(asked) > 0 {
		<-asked
	}
	for range 10 {
		if at := <-asked; !strings.HasPrefix(at, "127.0.0.2:") && !strings.HasPrefix(at, "127.0.0.3:") {
			t.Errorf("%s is asked", at)
		}
	}
	if c.Unchecked() != "" {
		t.Errorf("upstream %q waits", c.Unchecked())
	}
}
