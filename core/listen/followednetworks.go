package listen

import (
	"net/netip"
	"sync/atomic"
)

// FollowedNetworks is the set of addresses of a file, in the place of which another comes when the file has changed. Any goroutine may use
// it; nobody waits. The zero value is empty.
type FollowedNetworks struct{ now atomic.Pointer[Networks] }

// Switch puts n in force, for the requests from now on.
func (f *FollowedNetworks) Switch(n *Networks) { f.now.Store(n) }

// Contains says whether a is in the set that is in force.
func (f *FollowedNetworks) Contains(a netip.Addr) bool {
	n := f.now.Load()
	return n != nil && n.Contains(a)
}
