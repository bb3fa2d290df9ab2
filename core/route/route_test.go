package route

import (
	"fmt"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// request makes an exchange as the path would: "POST example.com/a?b=c", then header lines.
func request(t testing.TB, text string, lines ...string) *core.Exchange {
	t.Helper()
	x := &core.Exchange{Worker: &core.Worker{Loop: &loop.Loop{}}, Listener: &core.Listener{Name: "main", Scheme: "http"}}
	receive(t, x, text, lines...)
	return x
}

func receive(t testing.TB, x *core.Exchange, text string, lines ...string) {
	t.Helper()
	method, rest, found := strings.Cut(text, " ")
	if !found {
		method, rest = "GET", text
	}
	host, target, found := strings.Cut(rest, "/")
	if found {
		target = "/" + target
	} else {
		host, target = strings.TrimSuffix(rest, "*"), "*"
	}
	head := method + " " + target + " " + host
	m := &x.Request
	m.Adopt([]byte(head))
	m.Method = core.LookupMethod([]byte(method))
	m.MethodText = core.Span{End: uint32(len(method))}
	m.Target = core.Span{Start: uint32(len(method)) + 1, End: uint32(len(method) + 1 + len(target))}
	m.HostSpan = core.Span{Start: m.Target.End + 1, End: uint32(len(head))}
	if err := m.NormalizeTarget(false); err != nil {
		t.Fatalf("cannot normalise %q: %v", target, err)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		m.AddName(name, []byte(value))
	}
}

// rule1 makes a rule from the short form "[METHOD ]host/path", in which a path that begins with "~" is an expression.
func rule1(text string) Rule {
	r := Rule{Target: &core.Route{Name: text}}
	if method, rest, found := strings.Cut(text, " "); found {
		r.Methods = strings.Split(method, ",")
		text = rest
	}
	end := strings.IndexAny(text, "/~")
	path := ""
	if end >= 0 {
		text, path = text[:end], text[end:]
	}
	r.Host.Name, r.Host.Wildcard = text, false
	if name, is := strings.CutPrefix(text, "*."); is {
		r.Host = Host{name, true}
	}
	switch {
	case path == "":
	case path[0] == '~':
		r.Path = Path{PathRegex, path[1:]}
	case strings.HasSuffix(path, "/*"):
		r.Path = Path{PathPrefix, strings.TrimSuffix(path, "/*")}
	default:
		r.Path = Path{PathExact, path}
	}
	return r
}

func compile(t testing.TB, rules ...Rule) *Table {
	t.Helper()
	table, err := New(rules)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// name is the name of the route that x takes, with its parameters.
func name(table *Table, x *core.Exchange) string {
	r := table.Match(x)
	if r == nil {
		return ""
	}
	out := r.Name
	for _, p := range x.Params {
		out += fmt.Sprintf(" %s=%s", p.Name, p.Value)
	}
	return out
}

func TestMatch(t *testing.T) {
	f := func(rules string, requests ...string) {
		t.Helper()
		var list []Rule
		for _, s := range strings.Split(rules, "; ") {
			list = append(list, rule1(s))
		}
		table := compile(t, list...)
		for _, r := range requests {
			in, want, _ := strings.Cut(r, " -> ")
			if got := name(table, request(t, in)); got != want {
				t.Errorf("rules %q: %q took %q, want %q", rules, in, got, want)
			}
		}
	}
	// Hosts.
	f("a.com; *.a.com; *.b.a.com; /*",
		"a.com/ -> a.com", "A.Com:8080/ -> a.com", "a.com./ -> a.com", "a.com.:1/ -> a.com", "x.a.com/ -> *.a.com",
		"y.x.a.com/ -> *.a.com", "b.a.com/ -> *.a.com", "x.b.a.com/ -> *.b.a.com", "xa.com/ -> /*", "com/ -> /*",
		"/ -> /*", ".a.com/ -> /*", "a.com../ -> /*", "a.com.b/ -> /*", "X.B.A.COM/ -> *.b.a.com")
	f("[::1]; 127.0.0.1", "[::1]/ -> [::1]", "[::1]:80/ -> [::1]", "127.0.0.1:80/ -> 127.0.0.1", "[::2]/ -> ")
	f("A.COM./x", "a.com/x -> A.COM./x")
	f("*.a.com", strings.Repeat("x.", 124)+"a.com/ -> *.a.com", strings.Repeat("x", 300)+".a.com/ -> ")
	// Paths of one host.
	f("/; /a; /a/; /a/*; /ab", "/ -> /", "/a -> /a", "/a/ -> /a/", "/a/b -> /a/*", "/a/b/c -> /a/*", "/ab -> /ab",
		"/abc -> ", "/ab/ -> ", "/a// -> /a/*")
	f("/a/*", "/a -> /a/*", "/a/ -> /a/*", "/ab -> ", "/A -> ", "/ -> ", "* -> ")
	f("/*", "/ -> /*", "/x -> /*", "OPTIONS * -> /*")
	f("/a/b/c/d; /a/b/x", "/a/b/c/d -> /a/b/c/d", "/a/b/x -> /a/b/x", "/a/b -> ", "/a/b/c -> ", "/a/b/c/de -> ", "/a/b/cd -> ")
	f("/a/*; /a/b/*; /a/b/c/*", "/a/b/c/d -> /a/b/c/*", "/a/b/cd -> /a/b/*", "/a/bc -> /a/*", "/a/b -> /a/b/*")
	f("/caf%c3%a9/%7ea", "/caf%C3%A9/~a -> /caf%c3%a9/%7ea")
	// Parameters.
	f("/u/{id}; /u/me; /u/{id}/x; /{any}/me", "/u/me -> /u/me", "/u/7 -> /u/{id} id=7", "/u/7/x -> /u/{id}/x id=7",
		"/v/me -> /{any}/me any=v", "/u/ -> ", "/u -> ", "/u/7/ -> ", "/u/me/x -> /u/{id}/x id=me")
	f("/{a}/{b}/*; /x/*; /{c}", "/x/y/z -> /{a}/{b}/* a=x b=y", "/x -> /{c} c=x", "/x/ -> /x/*", "/q/ -> ")
	f("/{a}/b/*; /a/{b}/*", "/a/b/c -> /a/{b}/* b=b", "/x/b -> /{a}/b/* a=x")
	f("/{_-1}", "/%2F -> /{_-1} _-1=%2F")
	// Kinds of path.
	f("~/a/.*; /a/*; /a/b; a.com", "/a/b -> /a/b", "/a/c -> /a/*", "/a -> /a/*", "a.com/a/b -> a.com")
	f("~/a|/b; ~/a(/x)?; /{x}/y; h.com", "/a -> ~/a|/b", "/a/x -> ~/a(/x)?", "/ab -> ", "/b/x -> ", "h.com/a -> h.com")
	f("~(?i)/A", "/a -> ~(?i)/A", "/a%0A -> ")
	f("h.com; h.com~/.*", "h.com/x -> h.com~/.*", "OPTIONS h.com* -> h.com")
	// Methods, and the way back to less specific rules.
	f("POST /a/b; GET /a/{x}; PUT /a/*; DELETE /*; *.h.com/a/b; PATCH h.com; BREW /t; M-SEARCH,BREW /s",
		"POST /a/b -> POST /a/b", "GET /a/b -> GET /a/{x} x=b", "PUT /a/b -> PUT /a/*", "DELETE /a/b -> DELETE /*",
		"HEAD /a/b -> ", "GET h.com/a/b -> GET /a/{x} x=b", "PATCH h.com/a/b -> PATCH h.com",
		"PATCH x.h.com/a/b -> *.h.com/a/b", "POST x.h.com/a/c -> ", "BREW /t -> BREW /t", "brew /t -> ", "HACK /t -> ",
		"M-SEARCH /s -> M-SEARCH,BREW /s", "BREW /s -> M-SEARCH,BREW /s")
	f("/a; GET /a; GET /a", "/a -> GET /a", "POST /a -> /a")
}

func TestFirstWrittenWins(t *testing.T) {
	var rules []Rule
	for i := range 5 {
		r := rule1("/a")
		r.Target = &core.Route{Name: fmt.Sprint(i)}
		rules = append(rules, r)
	}
	if got := name(compile(t, rules...), request(t, "/a")); got != "0" {
		t.Errorf("rule %s won", got)
	}
}

func TestPriority(t *testing.T) {
	low, high, plain := rule1("a.com/x"), rule1("/*"), rule1("a.com/x")
	low.Priority, high.Priority = -1, 7
	high.Methods = []string{"GET"}
	plain.Target = &core.Route{Name: "plain"}
	plain.Methods = []string{"POST"}
	table := compile(t, low, plain, high)
	for in, want := range map[string]string{"GET a.com/x": "/*", "POST a.com/x": "plain", "PUT a.com/x": "a.com/x",
		"PUT a.com/y": ""} {
		if got := name(table, request(t, in)); got != want {
			t.Errorf("%s took %q, want %q", in, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	f := func(want string, change func(r *Rule)) {
		t.Helper()
		r := rule1("/a")
		change(&r)
		if _, err := New([]Rule{rule1("/ok"), r}); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "rule 1") {
			t.Errorf("New gave %v, want %q", err, want)
		}
	}
	f("no target", func(r *Rule) { r.Target = nil })
	path := func(kind PathKind, value, want string) {
		t.Helper()
		f(want, func(r *Rule) { r.Path = Path{kind, value} })
	}
	path(PathAny, "/a", "no kind")
	path(9, "", "unknown")
	path(PathExact, "", "begin")
	path(PathExact, "a", "begin")
	path(PathExact, "/a/../b", "dot segment")
	path(PathExact, "/a/%2e%2E/b", "dot segment")
	path(PathExact, "/a?b", "query")
	path(PathExact, "/a b", "invalid byte")
	path(PathExact, "/a\x01b", "invalid byte")
	path(PathPrefix, "/a%2", "triplet")
	path(PathExact, "/a{b}", "as a whole")
	path(PathExact, "/{}", "as a whole")
	path(PathExact, "/{1}", "as a whole")
	path(PathExact, "/{a}/{a}", "two segments {a}")
	path(PathExact, "/"+strings.Repeat("x", maxPathBytes), "longer")
	var many string
	for i := range maxParams + 1 {
		many += fmt.Sprintf("/{p%d}", i)
	}
	path(PathExact, many, "more than")
	path(PathRegex, "a(", "cannot parse")
	path(PathRegex, "a)(b", "cannot parse")
	host := func(name string, wildcard bool, want string) {
		t.Helper()
		f(want, func(r *Rule) { r.Host = Host{name, wildcard} })
	}
	host("", true, "no name")
	host("a..b", false, "empty label")
	host(".a", true, "empty label")
	host("*.a", false, "may not hold")
	host("a:80", false, "may not hold")
	host("a/b", false, "may not hold")
	host("[::1", false, "IPv6")
	host("[zz]", false, "IPv6")
	host(strings.Repeat("a", 254), false, "longer")
	f("no token", func(r *Rule) { r.Methods = []string{"GET "} })
	f("no name", func(r *Rule) { r.Query = []Field{{}} })
	f("no token", func(r *Rule) { r.Headers = []Field{{Name: "a:"}} })
	f("compared", func(r *Rule) { r.Cookies = []Field{{Name: "a", Op: FieldRegex}} })
	f("compared", func(r *Rule) { r.Cookies = []Field{{Name: "a", Regex: regexp.MustCompile("")}} })
	f("compared", func(r *Rule) { r.Query = []Field{{Name: "a", Op: 9}} })
	f("media type", func(r *Rule) { r.ContentTypes = []string{"text"} })
	f("media type", func(r *Rule) { r.ContentTypes = []string{"*/json"} })
	f("not valid", func(r *Rule) { r.Clients = []netip.Prefix{{}} })
	f("more than the IPv4", func(r *Rule) { r.Clients = []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/90")} })
}

func TestMatchDoesNotAllocate(t *testing.T) {
	rules := benchRules(1000)
	r := rule1("POST *.a.com/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}")
	r.Headers = []Field{{Name: "x-tenant", Value: "t"}, {Name: "Accept", Op: FieldPresent}, {Name: "no", Op: FieldAbsent}}
	r.Query = []Field{{Name: "a b", Value: "c&d"}, {Name: "q", Op: FieldPresent}}
	r.Cookies = []Field{{Name: "session", Value: "s"}}
	r.ContentTypes = []string{"text/*"}
	r.Listeners = []string{"main"}
	r.Clients = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	table := compile(t, append(rules, r)...)
	x := request(t, "POST Xy.A.COM:80/1/2/3/4/5/6/7/8?q&a+b=c%26d", "X-Tenant: t", "Accept: */*", "Cookie: a=b",
		"Cookie: c=d; session=s", "Content-Type: text/plain; charset=utf-8")
	x.Client.Addr = netip.MustParseAddr("10.1.2.3")
	if got := name(table, x); !strings.HasSuffix(got, " h=8") {
		t.Fatalf("took %q", got)
	}
	plain := request(t, "host7.example.com/api/v1/service-7/items")
	for _, x := range []*core.Exchange{x, plain} {
		if n := testing.AllocsPerRun(100, func() {
			x.Params = x.Params[:0]
			if table.Match(x) == nil {
				t.Fatal("no route")
			}
		}); n != 0 {
			t.Errorf("a match allocates %v times", n)
		}
	}
}

// TestMemory holds the promise of less than 1 KiB for each of 100,000 routes.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("builds 100,000 routes")
	}
	const n = 100_000
	for _, rules := range [][]Rule{benchRules(n), hostRules(n)} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		table := compile(t, rules...)
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := int64(after.HeapAlloc-before.HeapAlloc) / n
		t.Logf("%d bytes a route", each)
		if each >= 1024 || each <= 0 {
			t.Errorf("a route takes %d bytes", each)
		}
		runtime.KeepAlive(table)
		runtime.KeepAlive(rules)
	}
}
