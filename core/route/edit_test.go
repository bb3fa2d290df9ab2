package route

import (
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// edits runs a policy over "path -> path".
func edits(t *testing.T, p core.RequestPolicy, err error, cases ...string) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return
	}
	for _, c := range cases {
		in, want, _ := strings.Cut(c, " -> ")
		x := request(t, in)
		if v := p.OnRequest(x); v != core.Continue {
			t.Errorf("%s: verdict %v", in, v)
		}
		if got := string(x.Request.Path); got != want {
			t.Errorf("%s became %q, want %q", in, got, want)
		}
	}
}

func TestStripPrefix(t *testing.T) {
	p, err := NewStripPrefix("/v1")
	cases := []string{"/v1 -> /", "/v1/ -> /", "/v1/x -> /x", "/v1/x/ -> /x/", "/v1x -> /v1x", "/v2/v1 -> /v2/v1",
		"/V1/x -> /V1/x", "/ -> /", "* -> *", "/v1/v1/x -> /v1/x"}
	edits(t, p, err, cases...)
	p, err = NewStripPrefix("/v1/")
	edits(t, p, err, cases...)
	p, err = NewStripPrefix("/")
	edits(t, p, err, "/v1 -> /v1", "/ -> /", "* -> *")
	p, err = NewStripPrefix("/%7eme/%c3")
	edits(t, p, err, "/~me/%C3/a -> /a")
	for _, s := range []string{"", "v1", "/a/..", "/a b", "/a?b", "/{a}", "/%zz", "/%2e"} {
		if _, err := NewStripPrefix(s); err == nil {
			t.Errorf("prefix %q was taken", s)
		}
	}
}

func TestReplacePrefix(t *testing.T) {
	p, err := NewReplacePrefix("/v1", "/api/v2")
	edits(t, p, err, "/v1 -> /api/v2", "/v1/ -> /api/v2/", "/v1/x -> /api/v2/x", "/v1x -> /v1x", "* -> *")
	p, err = NewReplacePrefix("/v1", "/")
	edits(t, p, err, "/v1 -> /", "/v1/x -> /x", "/v1/ -> /")
	p, err = NewReplacePrefix("/", "/app")
	edits(t, p, err, "/ -> /app/", "/x -> /app/x", "* -> *")
	if _, err := NewReplacePrefix("x", "/y"); err == nil {
		t.Error("prefix was taken")
	}
	for _, s := range []string{"", "y", "/a/./b", "/a#", "/a\n", "/{x}"} {
		if _, err := NewReplacePrefix("/x", s); err == nil {
			t.Errorf("replacement %q was taken", s)
		}
	}
}

func TestRewrite(t *testing.T) {
	f := func(pattern, to string, cases ...string) {
		t.Helper()
		p, err := NewRewrite(regexp.MustCompile(pattern), to)
		edits(t, p, err, cases...)
	}
	f(`^/u/(\d+)(?:/(?P<what>\w+))?`, "/users/${1}-${what}x$2$$",
		"/u/7 -> /users/7-x$", "/u/7/a/b -> /users/7-axa$/b", "/u/x -> /u/x")
	f(`/old/`, "/new/", "/a/old/b/old/c -> /a/new/b/old/c")
	f(`.*`, "$0/$00", "/a -> /a//a", "* -> *")
	f(`^`, "/x%c3", "/a -> /x%C3/a")
	long := "/" + strings.Repeat("a", 2000)
	f(`$`, "b", long+" -> "+long+"b")
}

func TestRewriteRefusesTemplates(t *testing.T) {
	for to, want := range map[string]string{"$": "names no group", "$x": "names no group", "${": "not closed",
		"${}": "names no group", "$2": `no group "2"`, "${y}": `no group "y"`, "/$1 ${-1}": `no group "-1"`, "$99999999999999999999": "no group"} {
		if _, err := NewRewrite(regexp.MustCompile("(?P<x>a)"), to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v", to, err)
		}
	}
}

func TestRewriteGivesValidPathsOnly(t *testing.T) {
	for _, c := range []struct{ pattern, to, path string }{
		{"^/a", "", "/a"},
		{"^/a", "b", "/a"},
		{"^/", "", "/a"},
		{"a", "?x=", "/a"},
		{"a", "#", "/a"},
		{"a", " ", "/a"},
		{"a", "\r\n", "/a"},
		{"a", "\x7f", "/a"},
		{"a", "é", "/a"},
		{"a", `\`, "/a"},
		{"a", "..", "/a"},
		{"a", ".", "/a/"},
		{"^/a(.*)$", "/.$1", "/a./b"},
		{"^/a(.*)$", "/.$1", "/a.;b"},
		{"^/a(.*)$", "/%2e$1", "/a./b"},
		{"^/a(.*)$", "/..$1", "/a%2Fb"},
		{"2F", "", "/a%2F"},
		{"a(.*)", strings.Repeat("$1", 80), "/a" + strings.Repeat("b", 1000)},
	} {
		p, err := NewRewrite(regexp.MustCompile(c.pattern), c.to)
		if err != nil {
			t.Errorf("%q: %v", c.to, err)
			continue
		}
		x := answering(t, c.path)
		v := p.OnRequest(x)
		if v != core.Respond || x.Response.Status != 500 || x.Err == nil || x.Err.Side != core.SideInternal ||
			!strings.Contains(x.Err.Error(), "gives no valid path") {
			t.Errorf("%q to %q of %q gave %q, %v", c.pattern, c.to, c.path, x.Request.Path, x.Err)
		}
		if string(x.Request.Path) != c.path {
			t.Errorf("the path has become %q", x.Request.Path)
		}
	}
}

func TestSetHost(t *testing.T) {
	for _, s := range []string{"a.example.com", "a:8080", "[::1]:80", "[::1]", "a.b.", "127.0.0.1:1"} {
		p, err := NewSetHost(s)
		if err != nil {
			t.Error(err)
			continue
		}
		x := request(t, "old.com/x", "Host: old.com", "a: b")
		p.OnRequest(x)
		if got := string(x.Request.AppendLines(nil)); got != "a: b\r\nHost: "+s+"\r\n" {
			t.Errorf("lines are %q", got)
		}
		if string(x.Request.Host()) != "old.com" {
			t.Errorf("the client's host has become %q", x.Request.Host())
		}
	}
	for _, s := range []string{"", ":80", "a:", "a:0", "a:65536", "a:+1", "a b", "a\r\nb: c", "a/b", "[::1", "[::1]x",
		"u@h", "a..b", "a,b"} {
		if _, err := NewSetHost(s); err == nil {
			t.Errorf("host %q was taken", s)
		}
	}
}

func TestEditsDoNotAllocate(t *testing.T) {
	strip, err := NewStripPrefix("/v1")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := NewReplacePrefix("/x", "/api")
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewSetHost("up.example.com")
	if err != nil {
		t.Fatal(err)
	}
	x := answering(t, "/")
	head := []byte("GET /v1/./x/y")
	serve := func() {
		x.Request.Reset()
		x.Request.Adopt(head)
		x.Request.Target = core.Span{Start: 4, End: uint32(len(head))}
		if err := x.Request.NormalizeTarget(false); err != nil {
			t.Fatal(err)
		}
		strip.OnRequest(x)
		replace.OnRequest(x)
		host.OnRequest(x)
		if string(x.Request.Path) != "/api/y" {
			t.Fatalf("path is %q", x.Request.Path)
		}
	}
	for range 10 { // buffers grow once
		serve()
	}
	if n := testing.AllocsPerRun(1000, serve); n != 0 {
		t.Errorf("edits allocate %v times", n)
	}
}

// TestParamsOutliveEdits: what a redirect or a policy takes from the path must not change with it.
func TestParamsOutliveEdits(t *testing.T) {
	table := compile(t, rule1("/{a}/*"))
	x := request(t, "/v/./x")
	if table.Match(x) == nil {
		t.Fatal("no route")
	}
	for range 3 {
		x.Request.SetPath("/www", x.Request.Path)
	}
	if got := string(x.Request.Path); got != "/www/www/www/v/x" || string(x.Param("a")) != "v" {
		t.Errorf("path %q, parameter %q", got, x.Param("a"))
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add("^/a(.*)$", "/.$1", "/a./b")
	f.Add("2F", "", "/a%2Fb")
	f.Fuzz(func(t *testing.T, pattern, to, path string) {
		re, err := regexp.Compile(pattern)
		if err != nil || len(pattern) > 200 || len(to) > 200 {
			return
		}
		p, err := NewRewrite(re, to)
		if err != nil {
			return
		}
		x := answering(t, "/")
		head := []byte(path)
		x.Request.Adopt(head)
		x.Request.Target = core.Span{End: uint32(len(head))}
		if len(head) == 0 || head[0] != '/' || x.Request.NormalizeTarget(false) != nil {
			return
		}
		if p.OnRequest(x) != core.Continue {
			return
		}
		out := string(x.Request.Path)
		var m core.Message
		m.Adopt([]byte(out))
		m.Target = core.Span{End: uint32(len(out))}
		if err := m.NormalizeTarget(false); err != nil || string(m.Path) != out || m.Query != nil {
			t.Errorf("%q to %q of %q gives %q: %v", pattern, to, path, out, err)
		}
	})
}
