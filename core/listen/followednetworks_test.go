package listen

import (
	"net/netip"
	"sync"
	"testing"
)

// TestFollowedNetworks: whoever asks while a set takes the place of another is answered by one of the two, without an allocation.
func TestFollowedNetworks(t *testing.T) {
	var f FollowedNetworks
	a := netip.MustParseAddr("10.1.2.3")
	if f.Contains(a) {
		t.Error("nothing has an address")
	}
	one, other := NewNetworks([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}), NewNetworks([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")})
	f.Switch(one)
	var wait sync.WaitGroup
	wait.Go(func() {
		for range 1000 {
			f.Switch(other)
			f.Switch(one)
		}
	})
	for range 1000 {
		if !f.Contains(a) {
			t.Fatal("an address that both have is in neither")
		}
	}
	wait.Wait()
	if n := testing.AllocsPerRun(100, func() { f.Contains(a) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	f.Switch(NewNetworks(nil))
	if f.Contains(a) {
		t.Error("the set before is still in force")
	}
}
