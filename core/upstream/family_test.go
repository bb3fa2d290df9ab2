package upstream

import (
	"net/netip"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// A name may resolve to IPv6 and IPv4 while its server listens on one of them: requests that meet the other go on to it, a
// POST, too, since nothing of it was sent.
func TestAnEndpointThatAnswersOverOneFamily(t *testing.T) {
	a := newEndpoint(t)
	close(a.release)
	four := a.member
	four.Name = "both.example:80"
	six := four
	six.Address = loop.Address{AddrPort: netip.AddrPortFrom(netip.IPv6Loopback(), four.Address.AddrPort.Port())}
	h := newHost(t, 1, defaults(), six, four)
	one := h.dial(0)
	for range 2 {
		one.get("/get")
		if got := one.answer(200); got != "/get" {
			t.Errorf("got %q", got)
		}
		one.send("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
		if got := one.answer(200); got != "/post" {
			t.Errorf("got %q", got)
		}
	}
	h.on(0, func() {
		if len(h.failed) == 0 {
			t.Error("nobody tried the address that does not answer")
		}
		for _, err := range h.failed {
			if err != core.ErrConnectFailed {
				t.Errorf("an attempt failed with %v", err)
			}
		}
	})
}
