package core

import "testing"

func TestCookie(t *testing.T) {
	f := func(want string, ok bool, lines ...string) {
		t.Helper()
		var m Message
		m.Reset()
		for _, l := range lines {
			m.Add(FieldCookie, []byte(l))
		}
		if got, has := m.Cookie("sid"); string(got) != want || has != ok {
			t.Errorf("%q: got %q, %t", lines, got, has)
		}
	}
	f("", false)
	f("1", true, "sid=1")
	f("1", true, "a=b; sid=1; sid=2")
	f("1", true, "a=b", "b;c ; sid = 1 ")
	f("a=b", true, `sid="a=b"`)
	f(`"`, true, `sid="`)
	f("", true, "sid=")
	f("", false, "sid", "xsid=1; SID=1; sid2=3")
}
