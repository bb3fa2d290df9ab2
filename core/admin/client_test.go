package admin

import (
	"testing"
)

func TestClientOverTCP(t *testing.T) {
	g := &gateway{}
	l := g.serve(t, loopback())
	for _, prefix := range []string{"", "http://"} {
		if s, err := (&Client{prefix + l.Addr().String()}).Status(); err != nil || s.PID != 42 {
			t.Errorf("%q: %v, %v", prefix, s, err)
		}
	}
}
