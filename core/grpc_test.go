package core

import (
	"testing"
	"time"
)

func TestIsGRPC(t *testing.T) {
	f := func(in string, want bool) {
		t.Helper()
		if got := IsGRPC([]byte(in)); got != want {
			t.Errorf("%q: got %v", in, got)
		}
	}
	f("application/grpc", true)
	f("application/grpc+proto", true)
	f("Application/GRPC;charset=x", true)
	f("application/grpc-web", false)
	f("application/grpc-web-text+proto", false)
	f("application/grpcx", false)
	f("application/grp", false)
	f("", false)
}

func TestGRPCTimeout(t *testing.T) {
	f := func(in string, want time.Duration, ok bool) {
		t.Helper()
		var h Header
		h.AddName("Grpc-Timeout", []byte(in))
		if got, valid := h.GRPCTimeout(); got != want || valid != ok {
			t.Errorf("%q: got %v, %v", in, got, valid)
		}
	}
	f("1S", time.Second, true)
	f("99999999n", 99999999, true)
	f("20m", 20*time.Millisecond, true)
	f("3u", 3*time.Microsecond, true)
	f("2M", 2*time.Minute, true)
	f("1H", time.Hour, true)
	f("0S", 1, true)                     // over at once
	f("99999999H", maxGRPCTimeout, true) // bounded
	for _, bad := range []string{"", "S", "1", "100000000S", "1s", " 1S", "1S ", "-1S", "1.5S", "0x1S"} {
		f(bad, 0, false)
	}
	if d, ok := (&Header{}).GRPCTimeout(); d != 0 || !ok {
		t.Errorf("none: got %v, %v", d, ok)
	}
}
