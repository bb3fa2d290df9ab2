package route

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// condition checks which requests a rule for every path takes.
func condition(t *testing.T, change func(r *Rule)) func(want bool, text string, lines ...string) {
	r := rule1("/*")
	change(&r)
	table := compile(t, r)
	return func(want bool, text string, lines ...string) {
		t.Helper()
		x := request(t, text, lines...)
		if got := table.Match(x) != nil; got != want {
			t.Errorf("%s with %q: match %v, want %v", text, lines, got, want)
		}
		c := table.Explain(x)
		if len(c) != 1 || (c[0].Refused == "") != want {
			t.Errorf("%s with %q: Explain gives %+v", text, lines, c)
		}
	}
}

func TestHeaders(t *testing.T) {
	set := func(f ...Field) func(bool, string, ...string) {
		return condition(t, func(r *Rule) { r.Headers = f })
	}
	for _, n := range []string{"X-Tenant", "Accept"} { // unknown and known to the parser
		f := set(Field{Name: strings.ToLower(n), Value: "a"})
		f(true, "/", n+": a")
		f(true, "/", strings.ToUpper(n)+": a")
		f(true, "/", n+": b", n+": a")
		f(false, "/", n+": A")
		f(false, "/", n+": a, b")
		f(false, "/", n+"x: a")
		f(false, "/")
		f = set(Field{Name: n, Op: FieldPresent})
		f(true, "/", n+": ")
		f(false, "/", "Other: x")
		f = set(Field{Name: n, Op: FieldAbsent})
		f(false, "/", "Other: x", n+": ")
		f(true, "/", "Other: x")
		f = set(Field{Name: n, Op: FieldRegex, Regex: regexp.MustCompile(`^v[12]`)})
		f(true, "/", n+": v0", n+": v2.1")
		f(false, "/", n+": v3")
		f(false, "/")
	}
	f := set(Field{Name: "a", Value: "1"}, Field{Name: "b", Value: "2"})
	f(true, "/", "b: 2", "a: 1")
	f(false, "/", "b: 1", "a: 2")
	f(false, "/", "a: 1")
}

func TestHeaderThatWasRemoved(t *testing.T) {
	r := rule1("/*")
	r.Headers = []Field{{Name: "x", Op: FieldPresent}}
	x := request(t, "/", "x: 1")
	x.Request.RemoveName("x")
	if compile(t, r).Match(x) != nil {
		t.Error("a removed header was found")
	}
}

func TestQuery(t *testing.T) {
	set := func(f ...Field) func(bool, string, ...string) {
		return condition(t, func(r *Rule) { r.Query = f })
	}
	f := set(Field{Name: "a b", Value: "c&=d"})
	f(true, "/?a+b=c%26%3dd")
	f(true, "/?x&&a%20b=c%26=d&y")
	f(true, "/?a+b=x&a+b=c%26%3Dd")
	f(false, "/?a+b=c&=d")
	f(false, "/?a+b=c%26%3ddd")
	f(false, "/?a+b=c%26%3")
	f(false, "/?a+b")
	f(false, "/?A+b=c%26%3dd")
	f(false, "/")
	f = set(Field{Name: "a", Value: ""})
	f(true, "/?a")
	f(true, "/?a=")
	f(false, "/?a=%00")
	f(false, "/?")
	f = set(Field{Name: "a", Value: "100%"})
	f(true, "/?a=100%")
	f(true, "/?a=100%25")
	f = set(Field{Name: "a", Value: "1;b=2"})
	f(true, "/?a=1;b=2")
	f = set(Field{Name: "a", Op: FieldPresent})
	f(true, "/?b&%61")
	f(false, "/?b=a&aa")
	f = set(Field{Name: "a", Op: FieldAbsent})
	f(false, "/?b&a=1")
	f(true, "/?b=a")
	f(true, "/")
	f = set(Field{Name: "a", Op: FieldRegex, Regex: regexp.MustCompile(`^\d+ x$`)})
	f(true, "/?a=z&a=1%32+x")
	f(false, "/?a=12%2Bx")
	f(false, "/")
}

func TestCookies(t *testing.T) {
	set := func(f ...Field) func(bool, string, ...string) {
		return condition(t, func(r *Rule) { r.Cookies = f })
	}
	f := set(Field{Name: "s", Value: "1=2"})
	f(true, "/", "Cookie: s=1=2")
	f(true, "/", "cookie: a=b;s=1=2 ; c=d")
	f(true, "/", "Cookie: a=b", "Cookie: c; s=\"1=2\"")
	f(true, "/", "Cookie: s=0; s=1=2")
	f(false, "/", "Cookie: S=1=2")
	f(false, "/", "Cookie: xs=1=2")
	f(false, "/", "Cookie: s=1")
	f(false, "/", "Cookie: s=\"1=2")
	f(false, "/", "Cookies: s=1=2")
	f(false, "/")
	f = set(Field{Name: "s", Op: FieldPresent})
	f(true, "/", "Cookie: s=")
	f(false, "/", "Cookie: s; t=s")
	f = set(Field{Name: "s", Op: FieldAbsent})
	f(true, "/", "Cookie: a=b")
	f(false, "/", "Cookie: a=b", "Cookie: s=1")
	f(true, "/")
	f = set(Field{Name: "s", Op: FieldRegex, Regex: regexp.MustCompile(`^a`)})
	f(true, "/", "Cookie: s=b; s=\"ab\"")
	f(false, "/", "Cookie: s=b")
}

func TestContentTypes(t *testing.T) {
	f := condition(t, func(r *Rule) { r.ContentTypes = []string{"Text/*", "application/json"} })
	f(true, "/", "Content-Type: text/html")
	f(true, "/", "Content-Type: TEXT/x ; charset=a/b")
	f(true, "/", "Content-Type: application/JSON;a=b")
	f(false, "/", "Content-Type: application/json5")
	f(false, "/", "Content-Type: textual/x")
	f(false, "/", "Content-Type: text")
	f(false, "/", "Content-Type: text/")
	f(false, "/", "Content-Type: /json")
	f(false, "/", "Content-Type: application/x; text/html")
	f(false, "/", "Content-Type: text/html", "Content-Type: text/html")
	f(false, "/")
	f = condition(t, func(r *Rule) { r.ContentTypes = []string{"*/*"} })
	f(true, "/", "Content-Type: a/b")
	f(false, "/")
}

func TestClients(t *testing.T) {
	r := rule1("/*")
	for _, s := range []string{"10.1.2.3/8", "2001:db8::/32", "::ffff:192.0.2.0/120", "fe80::/10"} {
		r.Clients = append(r.Clients, netip.MustParsePrefix(s))
	}
	table := compile(t, r)
	for s, want := range map[string]bool{"10.9.9.9": true, "::ffff:10.0.0.1": true, "11.0.0.1": false, "2001:db8:1::": true,
		"2001:db9::": false, "192.0.2.7": true, "192.0.3.7": false, "fe80::1%eth0": true, "": false} {
		x := request(t, "/")
		if s != "" {
			x.Client.Addr = netip.MustParseAddr(s)
		}
		if got := table.Match(x) != nil; got != want {
			t.Errorf("client %q: match %v", s, got)
		}
	}
}

func TestListeners(t *testing.T) {
	f := condition(t, func(r *Rule) { r.Listeners = []string{"other", "main"} })
	f(true, "/")
	f = condition(t, func(r *Rule) { r.Listeners = []string{"other"} })
	f(false, "/")
}

func TestMoreConditionsGoFirst(t *testing.T) {
	plain, one, two, broad := rule1("/a"), rule1("GET /a"), rule1("GET /a"), rule1("GET,POST,PUT /a")
	two.Headers = []Field{{Name: "x", Value: "1"}}
	two.Target.Name, broad.Target.Name = "two", "broad"
	table := compile(t, plain, broad, one, two)
	for in, want := range map[string]string{"GET /a x: 1": "two", "GET /a x: 2": "broad", "HEAD /a x: 1": "/a"} {
		in, line, _ := strings.Cut(in, " x")
		if got := name(table, request(t, in, "x"+line)); got != want {
			t.Errorf("%s with x%s took %q, want %q", in, line, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	r := rule1("a.com/x")
	r.Headers = []Field{{Name: "x-a", Op: FieldPresent}, {Name: "x-b", Value: "2"}}
	urgent := rule1("POST /*")
	urgent.Priority = 3
	table := compile(t, rule1("/*"), rule1("b.com"), urgent, r, rule1("~/x+"), rule1("~/y"), rule1("*.com/x/*"))
	want := []Candidate{
		{Rule: 2, Priority: 3, Host: "any", Path: "prefix", Refused: "the method is not one of the rule's"},
		{Rule: 3, Host: "exact", Path: "exact", Refused: `header "x-b" is not "2"`},
		{Rule: 6, Host: "wildcard", Path: "prefix"},
		{Rule: 0, Host: "any", Path: "prefix"},
		{Rule: 4, Host: "any", Path: "regex"},
		{Rule: 5, Host: "any", Path: "regex", Refused: "the path does not match \"\\\\A(?:/y)\\\\z\""},
	}
	got := table.Explain(request(t, "a.com/x", "x-a: 1", "x-b: 1"))
	if len(got) != len(want) {
		t.Fatalf("%d candidates, want %d: %+v", len(got), len(want), got)
	}
	for i := range got {
		if got[i].Route == nil {
			t.Errorf("candidate %d has no route", i)
		}
		got[i].Route = nil
		if got[i] != want[i] {
			t.Errorf("candidate %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestExplainIsBounded(t *testing.T) {
	rules := make([]Rule, maxCandidates+10)
	for i := range rules {
		rules[i] = rule1("/a")
	}
	if n := len(compile(t, rules...).Explain(request(t, "/a"))); n != maxCandidates {
		t.Errorf("%d candidates", n)
	}
}
