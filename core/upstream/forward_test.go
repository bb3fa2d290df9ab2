package upstream

import (
	"net/netip"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/http1"
)

// TestForward says what an endpoint is told of the client, of every kind of peer and setting.
func TestForward(t *testing.T) {
	h := newHost(t, 1, defaults())
	f := func(peer string, trusted bool, set core.Forward, id, fields, want string) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			head := []byte("GET / HTTP/1.1\r\nHost: a.example\r\n" + fields + "\r\n")
			if _, err := http1.ParseRequest(&x.Request, head, &http1.Limits{HeaderBytes: 4096, Headers: 50}); err != nil {
				t.Errorf("%q: %v", fields, err)
				return
			}
			x.Request.Adopt(head)
			x.Listener = &core.Listener{Scheme: "http", Forward: set}
			x.Client.Trusted, x.Snapshot = trusted, &core.Snapshot{}
			if peer != "" {
				x.Client.Peer = netip.MustParseAddrPort(peer)
				x.Client.Via = x.Client.Peer.Addr().AppendTo(nil)
			}
			if id != "" {
				x.RequestID = []byte(id)
			}
			forward(x)
			x.Request.Remove(core.FieldHost)
			if got := string(x.Request.AppendLines(nil)); got != want {
				t.Errorf("%q from %q, trusted %v, %+v: got\n%swant\n%s", fields, peer, trusted, set, got, want)
			}
		})
	}
	const (
		v4, v6 = "192.0.2.1:80", "[2001:db8::1]:80"
		liar   = "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n" +
			"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Other: 1\r\n"
		protoHost = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n"
	)
	no, x := core.Forward{}, core.Forward{XForwarded: true}
	f(v4, false, no, "", liar, liar) // whoever switches it off wants nothing touched
	f(v4, false, x, "", "", "X-Forwarded-For: 192.0.2.1\r\n"+protoHost)
	f(v4, false, x, "", liar, "X-Other: 1\r\nX-Forwarded-For: 192.0.2.1\r\n"+protoHost)
	f(v6, false, x, "", liar, "X-Other: 1\r\nX-Forwarded-For: 2001:db8::1\r\n"+protoHost)

	f(v4, true, x, "", "", "X-Forwarded-For: 192.0.2.1\r\n"+protoHost)
	f(v4, true, x, "", "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for: 3.3.3.3\r\nX-Forwarded-For:\r\n",
		"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1\r\n"+protoHost)
	f(v4, true, x, "", "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\nX-Real-IP: 1.1.1.1\r\n",
		"X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.1\r\n")

	rfc := core.Forward{Forwarded: true}
	f(v4, false, rfc, "", "Forwarded: for=6.6.6.6\r\n", "Forwarded: for=192.0.2.1;host=\"a.example\";proto=http\r\n")
	f(v6, false, rfc, "", "", "Forwarded: for=\"[2001:db8::1]\";host=\"a.example\";proto=http\r\n")
	f("", false, rfc, "", "", "Forwarded: for=unknown;host=\"a.example\";proto=http\r\n")
	f(v4, true, rfc, "", "Forwarded: for=1.1.1.1\r\nForwarded: for=2.2.2.2\r\n",
		"Forwarded: for=1.1.1.1, for=2.2.2.2, for=192.0.2.1;host=\"a.example\";proto=http\r\n")

	f(v4, false, core.Forward{Via: "edge"}, "", "Via: 1.0 other\r\n", "Via: 1.0 other\r\nVia: 1.1 edge\r\n")

	id := core.Forward{RequestID: "X-Request-ID"}
	f(v4, false, id, "abc", "x-request-id: forged\r\nX-Request-ID: again\r\n", "X-Request-ID: abc\r\n")
	f(v4, false, id, "abc", "", "X-Request-ID: abc\r\n")
	f(v4, false, core.Forward{RequestID: "Trace"}, "abc", "trace: forged\r\nX-Request-ID: kept\r\n", "X-Request-ID: kept\r\nTrace: abc\r\n")
}
