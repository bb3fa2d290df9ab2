package core

import (
	"bytes"
	"testing"
)

func TestLookupField(t *testing.T) {
	for id := FieldOther + 1; id < fieldCount; id++ {
		name := id.String()
		for _, spelling := range [][]byte{[]byte(name), bytes.ToLower([]byte(name)), bytes.ToUpper([]byte(name))} {
			if got := LookupField(spelling); got != id {
				t.Errorf("LookupField(%q) = %d, want %d", spelling, got, id)
			}
		}
		// Every name that differs in one byte is another one, unless only the case differs.
		for i := range name {
			for c := range 256 {
				changed := []byte(name)
				changed[i] = byte(c)
				want := FieldOther
				if EqualFold(changed, name) {
					want = id
				}
				if got := LookupField(changed); got != want {
					t.Errorf("LookupField(%q) = %d, want %d", changed, got, want)
				}
			}
		}
		for _, other := range []string{name + "x", "x" + name, name[1:], name[:len(name)-1], name + name} {
			if got := LookupField([]byte(other)); got != FieldOther && !EqualFold([]byte(other), got.String()) {
				t.Errorf("LookupField(%q) = %v", other, got)
			}
		}
	}
	for _, other := range []string{"", "a", "xx", "a-name-that-is-longer-than-any-that-is-known"} {
		if got := LookupField([]byte(other)); got != FieldOther {
			t.Errorf("LookupField(%q) = %v", other, got)
		}
	}
}

func BenchmarkLookupField(b *testing.B) {
	names := [][]byte{[]byte("Host"), []byte("User-Agent"), []byte("Accept-Encoding"), []byte("X-Forwarded-For"), []byte("Content-Length")}
	for b.Loop() {
		for _, n := range names {
			LookupField(n)
		}
	}
}
