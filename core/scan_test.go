package core

import "testing"

// Eight bytes at a time must find what a byte at a time finds: for every byte at every place, between harmless bytes of
// all kinds, and with another one that might mask it.
func TestScan(t *testing.T) {
	text := func(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
	target := func(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }
	check := func(b []byte) {
		for from := range 3 {
			wantText, wantTarget := from, from
			for wantText < len(b) && text(b[wantText]) {
				wantText++
			}
			for wantTarget < len(b) && target(b[wantTarget]) {
				wantTarget++
			}
			if got := ScanText(b, from); got != wantText {
				t.Fatalf("ScanText(%q, %d) = %d, want %d", b, from, got, wantText)
			}
			if got := ScanTarget(b, from); got != wantTarget {
				t.Fatalf("ScanTarget(%q, %d) = %d, want %d", b, from, got, wantTarget)
			}
		}
	}
	for _, filler := range []string{"a", "!", "~", "\t", "\x80", "\xff"} {
		for i := range 20 {
			for c := range 256 {
				var b [20]byte
				for k := range b {
					b[k] = filler[0]
				}
				b[i] = byte(c)
				check(b[:])
				for _, second := range []byte{'\r', '\t', 0x7f, 0, '#', ' ', 0x80} {
					b[19-i] = second
					check(b[:])
				}
			}
		}
	}
}
