package tls

import (
	"fmt"
	"strings"
)

// NameTable finds what was set down for a server name: for the name itself, else for the longest wildcard above it, which covers
// one label or more, else for all names. It is filled by one goroutine; from then on any number look up, without allocating.
type NameTable[T any] struct {
	exact, wild map[string]T // wild by what follows the "*."
	all         *T
}

// Add sets v down for a name, "*.name", or "*": every other name, and none. It refuses what no client can ask for, and what
// stands there already.
func (t *NameTable[T]) Add(name string, v T) error {
	if name == "*" {
		if t.all != nil {
			return fmt.Errorf("cannot use name %q twice", name)
		}
		t.all = &v
		return nil
	}
	rest, wildcard := strings.CutPrefix(name, "*.")
	var buf [maxName]byte
	folded, ok := fold(rest, &buf)
	if !ok || !hostname(string(folded)) {
		return fmt.Errorf("cannot use %.300q as a server name", name)
	}
	in := &t.exact
	if wildcard {
		in = &t.wild
	}
	if _, taken := (*in)[string(folded)]; taken {
		return fmt.Errorf("cannot use name %q twice", name)
	}
	if *in == nil {
		*in = map[string]T{}
	}
	(*in)[string(folded)] = v
	return nil
}

// Find looks a name up as it came from the network; "" is a client that sent none. On a nil table it finds nothing.
func (t *NameTable[T]) Find(name string) (v T, found bool) {
	if t == nil {
		return v, false
	}
	var buf [maxName]byte
	if folded, ok := fold(name, &buf); ok {
		return t.find(folded)
	}
	return t.rest()
}

// FindBytes is Find.
func (t *NameTable[T]) FindBytes(name []byte) (v T, found bool) {
	if t == nil {
		return v, false
	}
	var buf [maxName]byte
	if folded, ok := fold(name, &buf); ok {
		return t.find(folded)
	}
	return t.rest()
}

func (t *NameTable[T]) find(folded []byte) (v T, found bool) {
	if v, found = t.exact[string(folded)]; found {
		return v, true
	}
	if len(t.wild) > 0 {
		for i := 1; i < len(folded); i++ {
			if folded[i] != '.' {
				continue
			}
			if v, found = t.wild[string(folded[i+1:])]; found {
				return v, true
			}
		}
	}
	return t.rest()
}

func (t *NameTable[T]) rest() (v T, found bool) {
	if t.all == nil {
		return v, false
	}
	return *t.all, true
}
