package route

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// reference is the priority rule, written down without regard to cost: filter, then sort.
func reference(rules []Rule, x *core.Exchange) (best []int) {
	host := strings.TrimSuffix(strings.ToLower(strings.Split(string(x.Request.Host()), ":")[0]), ".")
	path := string(x.Request.Path)
	for i := range rules {
		if r := &rules[i]; hostMatches(r, host) && pathMatches(r, path) && conditionsHold(r, x) {
			best = append(best, i)
		}
	}
	slices.SortStableFunc(best, func(a, b int) int {
		switch {
		case goesBefore(&rules[a], &rules[b]):
			return -1
		case goesBefore(&rules[b], &rules[a]):
			return 1
		}
		return 0
	})
	return best
}

func hostMatches(r *Rule, host string) bool {
	switch {
	case r.Host.Name == "":
		return true
	case r.Host.Wildcard:
		return strings.HasSuffix(host, "."+r.Host.Name) && len(host) > len(r.Host.Name)+1
	}
	return host == r.Host.Name
}

func pathMatches(r *Rule, path string) bool {
	switch r.Path.Kind {
	case PathAny:
		return true
	case PathRegex:
		loc := regexp.MustCompile("^(?:" + r.Path.Value + ")$").FindStringIndex(path)
		return loc != nil && loc[1] == len(path)
	}
	if r.Path.Value == "" {
		return true
	}
	want, got := strings.Split(r.Path.Value, "/"), strings.Split(path, "/")
	if len(got) < len(want) || r.Path.Kind == PathExact && len(got) > len(want) {
		return false
	}
	for i, w := range want {
		if w != got[i] && !(strings.HasPrefix(w, "{") && got[i] != "") {
			return false
		}
	}
	return true
}

// conditionsHold knows the conditions that randomRules makes.
func conditionsHold(r *Rule, x *core.Exchange) bool {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, string(x.Request.MethodBytes())) {
		return false
	}
	for _, f := range r.Headers {
		if v, _ := x.Request.Lookup(f.Name); string(v) != f.Value {
			return false
		}
	}
	return true
}

// goesBefore says whether a is strictly more specific than b, for a request that both match.
func goesBefore(a, b *Rule) bool {
	if a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	hostRank := func(r *Rule) int {
		switch {
		case r.Host.Name == "":
			return 0
		case r.Host.Wildcard:
			return len(r.Host.Name)
		}
		return 1000
	}
	if hostRank(a) != hostRank(b) {
		return hostRank(a) > hostRank(b)
	}
	pathRank := map[PathKind]int{PathExact: 3, PathPrefix: 2, PathRegex: 1, PathAny: 0}
	if a.Path.Kind != b.Path.Kind {
		return pathRank[a.Path.Kind] > pathRank[b.Path.Kind]
	}
	if a.Path.Kind == PathExact || a.Path.Kind == PathPrefix {
		p, q := strings.Split(a.Path.Value, "/"), strings.Split(b.Path.Value, "/")
		if len(p) != len(q) {
			return len(p) > len(q)
		}
		for i := range p {
			if pStatic, qStatic := !strings.HasPrefix(p[i], "{"), !strings.HasPrefix(q[i], "{"); pStatic != qStatic {
				return pStatic
			}
		}
	}
	conditions := func(r *Rule) int { return len(r.Headers) + min(1, len(r.Methods)) }
	return conditions(a) > conditions(b)
}

// randomRules makes rules from few names, so that they meet often. density is how many of 10 segments are a {name}.
func randomRules(r *rand.Rand, n int) []Rule {
	density, depth := r.IntN(6), 1+r.IntN(6)
	rules := make([]Rule, n)
	for i := range rules {
		rule := Rule{Target: &core.Route{Name: fmt.Sprint(i)}}
		if r.IntN(8) == 0 {
			rule.Priority = r.IntN(5) - 2
		}
		rule.Host = []Host{{}, {"a.b", false}, {"b", true}, {"a.b", true}, {"b", false}, {"c.a.b", false}}[r.IntN(6)]
		if r.IntN(3) == 0 {
			rule.Methods = [][]string{{"GET"}, {"POST"}, {"BREW"}, {"GET", "BREW"}}[r.IntN(4)]
		}
		for r.IntN(3) == 0 {
			rule.Headers = append(rule.Headers, Field{Name: string('p' + rune(r.IntN(2))), Value: "1"})
		}
		var path strings.Builder
		for j := range r.IntN(depth + 1) {
			if r.IntN(10) < density {
				fmt.Fprintf(&path, "/{p%d}", j)
			} else {
				path.WriteString("/" + randomSegment(r))
			}
		}
		switch r.IntN(10) {
		case 0:
		case 1:
			rule.Path = Path{PathRegex, []string{"/a.*", "/[ab]/.*", ".*/b", "/", ".*"}[r.IntN(5)]}
		case 2, 3, 4, 5:
			rule.Path = Path{PathPrefix, path.String()}
		default:
			rule.Path = Path{PathExact, path.String()}
			if path.Len() == 0 {
				rule.Path.Value = "/"
			}
		}
		rules[i] = rule
	}
	return rules
}

func randomSegment(r *rand.Rand) string {
	return []string{"a", "b", "ab", "", "a!"}[min(r.IntN(9), 4)%5]
}

func randomRequest(t testing.TB, r *rand.Rand) *core.Exchange {
	var s strings.Builder
	s.WriteString([]string{"GET", "POST", "BREW", "PUT"}[r.IntN(4)] + " ")
	s.WriteString([]string{"a.b", "c.a.b", "B", "x.B:80", "z", "y.c.a.b."}[r.IntN(6)])
	for range 1 + r.IntN(7) {
		s.WriteString("/" + randomSegment(r))
	}
	var lines []string
	for _, name := range []string{"p: 1", "q: 1"} {
		if r.IntN(2) == 0 {
			lines = append(lines, name)
		}
	}
	return request(t, s.String(), lines...)
}

// agree checks a table against the reference, and Explain against both.
func agree(t *testing.T, rules []Rule, table *Table, x *core.Exchange) {
	t.Helper()
	want := reference(rules, x)
	got := table.Match(x)
	describe := func() string {
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s %s%s\n", x.Request.MethodBytes(), x.Request.Host(), x.Request.Path)
		for i, r := range rules {
			fmt.Fprintf(&b, "%d: %+v\n", i, r)
		}
		return b.String()
	}
	if (got == nil) != (len(want) == 0) || got != nil && got != rules[want[0]].Target {
		t.Fatalf("took %+v, want one of %v for %s", got, want, describe())
	}
	var holds []int
	for _, c := range table.Explain(x) {
		if c.Refused == "" {
			holds = append(holds, c.Rule)
		}
	}
	if !slices.Equal(holds, want) {
		t.Fatalf("Explain orders %v, want %v for %s", holds, want, describe())
	}
	if got == nil {
		return
	}
	segments := strings.Split(string(x.Request.Path), "/")
	n := 0
	for i, s := range strings.Split(rules[want[0]].Path.Value, "/") {
		if strings.HasPrefix(s, "{") {
			if n >= len(x.Params) || "{"+x.Params[n].Name+"}" != s || string(x.Params[n].Value) != segments[i] {
				t.Fatalf("parameters %v for %s", x.Params, describe())
			}
			n++
		}
	}
	if n != len(x.Params) {
		t.Fatalf("%d parameters, want %d, for %s", len(x.Params), n, describe())
	}
}

func TestMatchIsAsTheReference(t *testing.T) {
	matched := 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 1))
		rules := randomRules(r, 1+r.IntN(60))
		table := compile(t, rules...)
		for range 20 {
			x := randomRequest(t, r)
			agree(t, rules, table, x)
			if len(x.Params) > 1 {
				matched++
			}
		}
	}
	if matched < 500 {
		t.Errorf("only %d requests had several parameters: the test has lost its point", matched)
	}
}

// TestManyPrefixes takes the way of requests that meet more prefixes than a search notes, also where all paths begin with the same.
func TestManyPrefixes(t *testing.T) {
	for _, base := range []string{"", "/x/y"} {
		t.Run("below "+base+"/", func(t *testing.T) { manyPrefixes(t, base) })
	}
}

func manyPrefixes(t *testing.T, base string) {
	var rules []Rule
	for i := range 1 << 6 { // every mixture of "a" and {name} at six depths
		for depth := range 7 {
			path := base
			for j := range depth {
				path += []string{"/a", fmt.Sprintf("/{p%d}", j)}[i>>j&1]
			}
			rule := Rule{Target: &core.Route{Name: path}, Path: Path{PathPrefix, path}}
			if (i+depth)%5 > 0 {
				rule.Methods = []string{"POST"}
			}
			rules = append(rules, rule)
		}
	}
	empty := rule1("POST " + base + "/a/a/a//a/*") // leads deep past an empty segment, which is none for a {name}
	rules = append(rules, empty)
	table := compile(t, rules...)
	for _, in := range []string{"/a/a/a/a/a/a/a", "/a/a/a/b/a/a", "/b/a/a/a/b", "/a//a", "/a/a/a//a/a", "/"} {
		agree(t, rules, table, request(t, base+in))
		agree(t, rules, table, request(t, "/x"+base+in))
	}
	for _, in := range []string{"/a/a/a/a/a/b", "/b/b/b/b/b/b"} {
		agree(t, rules, table, request(t, "POST "+base+in))
	}
	x := request(t, base+"/a/a/a/a/a/a/a")
	if n := testing.AllocsPerRun(10, func() {
		x.Params = x.Params[:0]
		table.Match(x)
	}); n != 0 {
		t.Errorf("a match allocates %v times", n)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add(uint64(1), "/a/b", "a.b")
	f.Add(uint64(2), "/a//b/%2E", "x.b.")
	f.Add(uint64(3), "*", "")
	f.Fuzz(func(t *testing.T, seed uint64, target, host string) {
		if target == "" || target[0] != '/' && target != "*" || strings.ContainsAny(host, "[]:") || len(host) > maxHostBytes {
			return
		}
		for i := range host {
			if host[i] >= 0x80 || host[i] == ' ' {
				return
			}
		}
		r := rand.New(rand.NewPCG(seed, 1))
		rules := randomRules(r, 1+r.IntN(60))
		table := compile(t, rules...)
		x := &core.Exchange{Listener: &core.Listener{}}
		head := "GET " + target + " " + host
		x.Request.Adopt([]byte(head))
		x.Request.Method, x.Request.MethodText = core.MethodGet, core.Span{End: 3}
		x.Request.Target = core.Span{Start: 4, End: uint32(4 + len(target))}
		x.Request.HostSpan = core.Span{Start: uint32(5 + len(target)), End: uint32(len(head))}
		if x.Request.NormalizeTarget(seed%2 == 0) != nil {
			return
		}
		agree(t, rules, table, x)
	})
}
