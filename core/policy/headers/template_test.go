package headers

import "testing"

func TestParse(t *testing.T) {
	f := func(in string, parts int, ok bool) {
		t.Helper()
		got, err := parse(in)
		if (err == nil) != ok || len(got) != parts {
			t.Errorf("%q: got %d parts, %v", in, len(got), err)
		}
	}
	f("", 0, true)
	f("plain", 1, true)
	f("{host}", 1, true)
	f("a{host}b{path}", 4, true)
	f("{{host}", 1, true)
	f("{{{host}", 2, true)
	f("a}b", 1, true)
	for _, bad := range []string{"{", "{host", "{Host}", "{ host}", "{}", "{no}", "a{host}{"} {
		f(bad, 0, false)
	}
}
