package core

import (
	"bytes"
	"strings"
	"testing"
)

// normalize runs NormalizeTarget over a target.
func normalize(m *Message, method Method, target string, merge bool) *Error {
	m.Reset()
	m.Adopt([]byte(target))
	m.Method = method
	m.Target = Span{0, uint32(len(target))}
	return m.NormalizeTarget(merge)
}

func TestNormalizeTarget(t *testing.T) {
	const none = "\x00" // no query
	for _, c := range []struct {
		in, path, query string
		merged          string // if it differs
	}{
		{"/", "/", none, ""},
		{"/?", "/", "", ""},
		{"/a?b=c?d&e=%zz/../#", "/a", "b=c?d&e=%zz/../#", ""},
		{"/a/b.c/..d/.e/f./g..", "/a/b.c/..d/.e/f./g..", none, ""},
		{"/.well-known/x", "/.well-known/x", none, ""},
		{"/a/.", "/a/", none, ""},
		{"/a/./", "/a/", none, ""},
		{"/./a", "/a", none, ""},
		{"/a/b/../c", "/a/c", none, ""},
		{"/a/b/..", "/a/", none, ""},
		{"/a/..", "/", none, ""},
		{"/a/../", "/", none, ""},
		{"/a/b/c/./../../g?x", "/a/g", "x", ""},
		{"/...", "/...", none, ""},
		{"/a/.../b", "/a/.../b", none, ""},
		{"//", "//", none, "/"},
		{"//a//b//", "//a//b//", none, "/a/b/"},
		{"/a//../b", "/a/b", none, "/b"},
		{"/a//.", "/a//", none, "/a/"},
		{"/a/.//b", "/a//b", none, "/a/b"},
		{"/%61dmin/%7Euser/%2d%5F%30", "/admin/~user/-_0", none, ""},
		{"/a%2ephp", "/a.php", none, ""},
		{"/%2ehtaccess", "/.htaccess", none, ""},
		{"/a%2fb/%e4%3a%2F", "/a%2Fb/%E4%3A%2F", none, ""},
		{"/a%5cb", "/a%5Cb", none, ""},
		{"/%252e%252e/%2541", "/%252e%252e/%2541", none, ""},
		{"/%0d%0a%7f%20", "/%0D%0A%7F%20", none, ""},
		{"/a;b/c;..;/;x/;", "/a;b/c;..;/;x/;", none, ""},
		{"/a/..b;c/.d;", "/a/..b;c/.d;", none, ""},
		{"/a/...;/%2e%2e%2e", "/a/...;/...", none, ""},
		{"/{a}|b^`\"<>*", "/{a}|b^`\"<>*", none, ""},
		{"http://a", "/", none, ""},
		{"http://a?b", "/", "b", ""},
		{"http://a?/b", "/", "/b", ""},
		{"https://a:1/b/../c?d", "/c", "d", ""},
		{"http://a//b", "//b", none, "/b"},
		{"*", "*", none, ""},
	} {
		for _, merge := range []bool{false, true} {
			want := c.path
			if merge && c.merged != "" {
				want = c.merged
			}
			var m Message
			if err := normalize(&m, MethodGet, c.in, merge); err != nil {
				t.Errorf("%q: %v", c.in, err)
				continue
			}
			if string(m.Path) != want || (m.Query == nil) != (c.query == none) || m.Query != nil && string(m.Query) != c.query {
				t.Errorf("%q: path %q, query %q, want %q, %q", c.in, m.Path, m.Query, want, c.query)
			}
		}
	}
}

func TestNormalizeTargetRefused(t *testing.T) {
	for in, want := range map[string]*Error{
		"":                   errTargetForm,
		"a":                  errTargetForm,
		"**":                 errTargetForm,
		"a:80":               errTargetForm,
		"/..":                errTargetAbove,
		"/../a":              errTargetAbove,
		"/a/../..":           errTargetAbove,
		"/./..":              errTargetAbove,
		"http://a/..":        errTargetAbove,
		"/a\\..\\b":          errTargetByte,
		"/./a\\b":            errTargetByte,
		"/a b":               errTargetByte,
		"/a#b":               errTargetByte,
		"/./a#b":             errTargetByte,
		"/\x7f":              errTargetByte,
		"/\x80":              errTargetByte,
		"/%00":               errTargetTriplet,
		"/a%":                errTargetTriplet,
		"/a%4":               errTargetTriplet,
		"/a%4/a":             errTargetTriplet,
		"/a%4?1":             errTargetTriplet,
		"/%4g":               errTargetTriplet,
		"/%g4":               errTargetTriplet,
		"/%u002e":            errTargetTriplet,
		"/%2e":               errTargetTraversal,
		"/%2E/a":             errTargetTraversal,
		"/a/%2e%2e/b":        errTargetTraversal,
		"/a/.%2e/b":          errTargetTraversal,
		"/a/%2e./b":          errTargetTraversal,
		"/a/..%2fb":          errTargetTraversal,
		"/a/..%5cb":          errTargetTraversal,
		"/a/b%2f..":          errTargetTraversal,
		"/a/b%2f%2e%2e%5cc":  errTargetTraversal,
		"/a/b%2F.%2fc":       errTargetTraversal,
		"/a/..;/b":           errTargetTraversal,
		"/a/..;x=y/b":        errTargetTraversal,
		"/a/.;/b":            errTargetTraversal,
		"/a/%2e%2e;/b":       errTargetTraversal,
		"/a/..%3b/b":         errTargetTraversal,
		"/a/x%2f..;y%2fz/b":  errTargetTraversal,
		"/a/x;y%2f..%2fz":    errTargetTraversal,
		"http://a/%2e%2e/b?": errTargetTraversal,
	} {
		for _, merge := range []bool{false, true} {
			var m Message
			if err := normalize(&m, MethodGet, in, merge); err != want {
				t.Errorf("%q: path %q, error %v, want %v", in, m.Path, err, want)
			}
		}
	}
}

func TestNormalizeTargetByMethod(t *testing.T) {
	var m Message
	if err := normalize(&m, MethodConnect, "a:443", true); err != nil || m.Path != nil {
		t.Errorf("CONNECT: %q, %v", m.Path, err)
	}
	if err := normalize(&m, MethodOptions, "http://a", true); err != nil || string(m.Path) != "*" {
		t.Errorf("OPTIONS: %q, %v", m.Path, err)
	}
	if err := normalize(&m, MethodOptions, "http://a/", true); err != nil || string(m.Path) != "/" {
		t.Errorf("OPTIONS with a path: %q, %v", m.Path, err)
	}
}

// A prefix may be put before a path that stands in m's own memory.
func TestNormalizeTargetThenSetPath(t *testing.T) {
	var m Message
	for range 3 {
		if err := normalize(&m, MethodGet, "/x/../strip/%61bc", true); err != nil {
			t.Fatal(err)
		}
		m.SetPath("/longer-than-what-was-there", m.Path[len("/strip"):])
		if string(m.Path) != "/longer-than-what-was-there/abc" {
			t.Fatalf("path %q", m.Path)
		}
	}
}

func TestNormalizeTargetAllocatesNothing(t *testing.T) {
	var m Message
	for _, target := range []string{"/a/b?c", "/a//b/../%61", "http://a?b", "/..", "/" + strings.Repeat("%61/", 50)} {
		head := []byte(target)
		if n := testing.AllocsPerRun(100, func() {
			m.Reset()
			m.Adopt(head)
			m.Target = Span{0, uint32(len(head))}
			m.NormalizeTarget(true)
		}); n != 0 {
			t.Errorf("%q: %v allocations", target, n)
		}
	}
}

func BenchmarkNormalizeTarget(b *testing.B) {
	for name, target := range map[string]string{"plain": "/v1/catalog/items/4711?page=2&sort=price", "slow": "/v1//catalog/./items/%34711?page=2"} {
		b.Run(name, func(b *testing.B) {
			var m Message
			normalize(&m, MethodGet, target, true)
			b.ReportAllocs()
			for b.Loop() {
				if m.NormalizeTarget(true) != nil {
					b.Fatal()
				}
			}
		})
	}
}

// FuzzNormalizeTarget: a normal path is its own normal form, with no segment that anybody could take for a dot segment.
func FuzzNormalizeTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/../b?c", "/%2e%2e/", "/a//b", "http://a/b", "*", "/..;/", "/%61%2f..", "/.%5c..", "/a/./.%2E/"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, target string, merge bool) {
		var m, again Message
		if err := normalize(&m, MethodGet, target, merge); err != nil {
			return
		}
		path := string(m.Path)
		if path == "*" && target == "*" {
			return
		}
		if path == "" || path[0] != '/' || merge && strings.Contains(path, "//") || strings.ContainsAny(path, " \\#?\x00\x7f") {
			t.Fatalf("%q: path %q", target, path)
		}
		if err := normalize(&again, MethodGet, path, merge); err != nil || string(again.Path) != path || again.Query != nil {
			t.Fatalf("%q: path %q, then %q, %v", target, path, again.Path, err)
		}
		decoded := bytes.NewBufferString(path).Bytes()
		for _, pair := range []string{"%2E.", "%2F/", "%5C/", "%3B;"} {
			decoded = bytes.ReplaceAll(decoded, []byte(pair[:3]), []byte(pair[3:]))
		}
		for _, s := range strings.Split(string(decoded), "/") {
			if s, _, _ = strings.Cut(s, ";"); s == "." || s == ".." {
				t.Fatalf("%q: path %q", target, path)
			}
		}
	})
}
