package acme

import "strings"

// maxName is the length of the longest domain name in text, without trailing dot; RFC 1035, section 2.3.4.
const maxName = 253

// fold gives a domain name in lower case and without trailing dot; ok says whether an authority could certify it: labels of
// letters, digits and inner hyphens, the last of which is no number, as in an address. It allocates only for upper case.
func fold(name string) (folded string, ok bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return "", false
	}
	upper, start, letters := false, 0, false
	for i := range len(name) + 1 {
		if i == len(name) || name[i] == '.' {
			if i == start || i-start > 63 || name[start] == '-' || name[i-1] == '-' || i == len(name) && !letters {
				return "", false
			}
			start, letters = i+1, false
			continue
		}
		switch c := name[i]; {
		case c >= 'a' && c <= 'z':
			letters = true
		case c >= 'A' && c <= 'Z':
			letters, upper = true, true
		case c >= '0' && c <= '9', c == '-':
		default:
			return "", false
		}
	}
	if upper {
		name = strings.ToLower(name)
	}
	return name, true
}

// whyNot says what is wrong with a name that fold refuses.
func whyNot(name string) string {
	switch {
	case strings.Contains(name, "*"):
		return "a wildcard needs the challenge dns-01"
	case strings.ContainsFunc(name, func(r rune) bool { return r > '~' }):
		return "it must be written in ASCII, xn--..."
	}
	return "it is no domain name"
}
