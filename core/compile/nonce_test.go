package compile

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// TestNonces: each counts once until its time is over, and those whose time is over make room.
func TestNonces(t *testing.T) {
	n := &nonces{used: map[[sha256.Size]byte]int64{}}
	f := func(key, nonce string, now int64, want bool) {
		t.Helper()
		if first, full := n.Use(key, nonce, now+100, now); first != want || full {
			t.Errorf("%s %s at %d: %v %v", key, nonce, now, first, full)
		}
	}
	f("k", "a", 0, true)
	f("k", "a", 99, false)
	f("j", "a", 0, true)
	f("k", "a", 100, true)
	for i := range int64(100_000) {
		f("k", fmt.Sprint(i), 1000+i, true)
	}
	if len(n.used) > 2000 {
		t.Errorf("%d are remembered, of which 100 could be used again", len(n.used))
	}
	for i := range maxNonces {
		n.used[sha256.Sum256(fmt.Append(nil, i))] = 1 << 40
	}
	if first, full := n.Use("k", "one more", 1<<40, 1<<20); first || !full {
		t.Errorf("past the bound: %v %v", first, full)
	}
	if first, full := n.Use("k", "and later", 1<<41, 1<<40); !first || full {
		t.Errorf("after the time of all: %v %v", first, full)
	}
}
