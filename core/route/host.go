package route

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// hostClass is how specific a host condition is, the most specific first.
type hostClass uint8

const (
	hostExact hostClass = iota
	hostWildcard
	hostAny
)

func (c hostClass) String() string { return [...]string{"exact", "wildcard", "any"}[c] }

// hostCondition checks a host condition and gives its name as requests' hosts are compared.
func hostCondition(h Host) (hostClass, string, error) {
	if h.Name == "" {
		if h.Wildcard {
			return 0, "", errors.New("wildcard host has no name")
		}
		return hostAny, "", nil
	}
	name := strings.TrimSuffix(strings.ToLower(h.Name), ".")
	if err := checkHost(name); err != nil {
		return 0, "", err
	}
	if h.Wildcard {
		return hostWildcard, name, nil
	}
	return hostExact, name, nil
}

// checkHost takes a name of non-empty labels, or an IPv6 address in brackets, without port.
func checkHost(name string) error {
	if len(name) > maxHostBytes {
		return fmt.Errorf("host is longer than %d bytes", maxHostBytes)
	}
	if rest, is := strings.CutPrefix(name, "["); is {
		address, is := strings.CutSuffix(rest, "]")
		if !is || strings.Trim(address, "0123456789abcdefABCDEF:.") != "" || !strings.Contains(address, ":") {
			return fmt.Errorf("host %q is no IPv6 address in brackets", name)
		}
		return nil
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return fmt.Errorf("host %q has an empty label", name)
		}
	}
	for i := range len(name) {
		if c := name[i]; !isLetter(c) && !isDigit(c) && c != '-' && c != '_' && c != '~' && c != '.' {
			return fmt.Errorf("host %q may not hold %q", name, c)
		}
	}
	return nil
}

// requestHost is the host of an authority as conditions have it, in dst. It is empty where no name can be meant.
func requestHost(dst *[maxHostBytes]byte, authority []byte) []byte {
	h := withoutPort(authority)
	if n := len(h); n > 0 && h[n-1] == '.' {
		h = h[:n-1]
	}
	if len(h) > len(dst) {
		return nil
	}
	for i, c := range h {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst[i] = c
	}
	return dst[:len(h)]
}

// withoutPort cuts the port off an authority; an IPv6 address keeps its brackets.
func withoutPort(b []byte) []byte {
	if len(b) > 0 && b[0] == '[' {
		return b[:bytes.IndexByte(b, ']')+1]
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 {
		return b[:i]
	}
	return b
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
