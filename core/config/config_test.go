package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// mustParse returns the configuration, without positions, of a text that is accepted.
func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, problems := Parse("sluice.yaml", []byte(text), filesEnv(map[string]string{"env": "WORD=s3cret\nLONG=a-key-of-twenty-bytes\nLONGER=a-secret-of-thirty-two-bytes-at-least\n", "/word": "s3cret\n",
		"/etc/sluice/consumers.jsonl": `{"name":"beta","groups":["partners"]}` + "\n"}))
	if cfg == nil {
		t.Fatalf("refused:\n%s", problems)
	}
	return cfg
}

// bare takes off what differs between two ways to write the same: positions, and the text of matches.
func bare(cfg *Config) *Config {
	clear := func(p *Pos) { *p = Pos{} }
	clear(&cfg.Admin.Bind.Pos)
	clear(&cfg.Tuning.CPUAt)
	if c := cfg.Cluster; c != nil {
		clear(&c.Pos)
		if c.Redis.TLS != nil {
			clear(&c.Redis.TLS.Pos)
		}
	}
	if i := cfg.Identity; i != nil && i.Token != nil {
		clear(&i.Token.Pos)
	}
	if v := cfg.Secrets.Vault; v != nil {
		clear(&v.Pos)
		v.AppRole.SecretID = Secret{}
	}
	for i := range cfg.Upstreams {
		if a := cfg.Upstreams[i].Authorize; a != nil {
			clear(&a.Pos)
			a.ClientCredentials.Client.Secret = Secret{}
			if a.ClientCredentials.TLS != nil {
				clear(&a.ClientCredentials.TLS.Pos)
			}
		}
	}
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		clear(&l.Pos)
		for j := range l.Binds {
			clear(&l.Binds[j].Pos)
		}
		if t := l.TLS; t != nil {
			clear(&t.Pos)
			if t.ACME != nil {
				clear(&t.ACME.Pos)
			}
			for j := range t.Certificates {
				clear(&t.Certificates[j].Pos)
			}
			if t.ClientAuth != nil {
				clear(&t.ClientAuth.Pos)
			}
			for j := range t.Policies {
				clear(&t.Policies[j].Pos)
				if a := t.Policies[j].ClientAuth; a != nil {
					clear(&a.Pos)
				}
			}
		}
	}
	for i := range cfg.Upstreams {
		u := &cfg.Upstreams[i]
		clear(&u.Pos)
		if t := u.TLS; t != nil {
			clear(&t.Pos)
			if t.Certificate != nil {
				clear(&t.Certificate.Pos)
			}
		}
		if h := u.Health; h != nil {
			clear(&h.Pos)
			if h.OwnTLS != nil {
				clear(&h.OwnTLS.Pos)
			}
		}
		for j := range u.Endpoints {
			clear(&u.Endpoints[j].Pos)
		}
		for j := range u.Files {
			clear(&u.Files[j].Defaults.Pos)
		}
		clear(&u.Timeouts.perTryAt)
		clear(&u.Retry.pos)
		clear(&u.Hedge.pos)
		clear(&u.Retry.perTryAt)
		for j := range u.Balance.Keys {
			clear(&u.Balance.Keys[j].Pos)
		}
	}
	for _, f := range (&loader{cfg: cfg}).fallbacks() {
		clear(&f.To.Pos)
	}
	for i := range cfg.Policies {
		barePolicy(&cfg.Policies[i])
	}
	for i := range cfg.Consumers {
		clear(&cfg.Consumers[i].Pos)
	}
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		clear(&r.Pos)
		for j := range r.Use {
			clear(&r.Use[j].Pos)
			if p := r.Use[j].Inline; p != nil {
				barePolicy(p)
			}
		}
		if r.Timeouts != nil {
			clear(&r.Timeouts.perTryAt)
		}
		if r.Hedge != nil {
			clear(&r.Hedge.pos)
		}
		if r.Retry != nil {
			clear(&r.Retry.pos)
			clear(&r.Retry.perTryAt)
		}
		if r.ClientCert != nil {
			clear(&r.ClientCert.Pos)
		}
		for j := range r.To {
			clear(&r.To[j].Pos)
		}
		for j := range r.SplitBy {
			clear(&r.SplitBy[j].Pos)
		}
		if m := r.Mirror; m != nil {
			clear(&m.Pos)
		}
		if c := r.Canary; c != nil {
			clear(&c.To.Pos)
			clear(&c.AbortPos)
			for j := range c.Keys {
				clear(&c.Keys[j].Pos)
			}
		}
		for j := range r.Matches {
			clear(&r.Matches[j].Pos)
			r.Matches[j].Text = ""
		}
	}
	return cfg
}

func barePolicy(p *Policy) {
	if f := p.Forward; f != nil && f.TLS != nil {
		f.TLS.Pos = Pos{}
	}
	if a := p.ExtAuthz; a != nil && a.TLS != nil {
		a.TLS.Pos = Pos{}
	}
	if o := p.OIDC; o != nil && o.TLS != nil {
		o.TLS.Pos = Pos{}
	}
	p.Pos = Pos{}
	if r := p.RateLimit; r != nil {
		for i := range r.Levels {
			r.Levels[i].Pos = Pos{}
			for _, own := range [][]OwnRate{r.Levels[i].Tiers, r.Levels[i].Consumers} {
				for j := range own {
					own[j].Pos = Pos{}
				}
			}
		}
	}
	if p.Access != nil {
		p.Access.Allow.named, p.Access.Deny.named = nil, nil
	}
	for i := range p.All {
		barePolicy(&p.All[i])
	}
	for i := range p.Any {
		barePolicy(&p.Any[i])
	}
}

const smallest = "listeners: { http: { bind: \":80\" } }\nroutes: [{ match: \"*\", respond: {} }]\n"

func TestDefaults(t *testing.T) {
	got := mustParse(t, "listeners: { http: { bind: \":80\", real_ip: { trusted: 10.0.0.0/8 } } }\n"+
		"upstreams: { a: \"b:80\" }\nroutes:\n  - { match: \"*\", to: a }\n  - { match: /x, respond: {} }\n  - { match: /y, redirect: /z }\n")
	at := func(line, column int32) Pos { return Pos{File: "sluice.yaml", Line: line, Column: column} }
	want := &Config{
		Secrets:   Secrets{Refresh: 5 * time.Minute},
		Drain:     Drain{30 * time.Second, 30 * time.Second},
		Log:       Log{Level: "info", Format: "text"},
		AccessLog: AccessLog{Sample: 1, Queue: 65536},
		Admin:     Admin{Bind: Bind{Path: "/run/sluice/admin.sock"}},
		Tuning:    Tuning{MemoryPercent: 80, GCAuto: true, RaiseFiles: true, ShedPercent: 90, CoreDumps: "off"},
		Listeners: []Listener{{
			Name:     "http",
			Pos:      at(1, 14),
			Binds:    []Bind{{Addr: netip.MustParseAddrPort("[::]:80"), Pos: at(1, 28)}},
			Timeouts: ListenerTimeouts{Header: 10 * time.Second, Idle: 75 * time.Second, Body: time.Minute, Write: time.Minute},
			Limits:   ListenerLimits{HeaderBytes: 32768, Headers: 100},
			RealIP:   &RealIP{Header: "X-Forwarded-For", Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
			Forward:  Forward{XForwarded: true, RequestID: "X-Request-ID"},

			RequestTimeout: "ignore",

			Protocols: Protocols{H1: true},
			HTTP2:     ListenerHTTP2{Streams: 128, KeepAliveTimeout: 10 * time.Second, MaxAgeGrace: 30 * time.Second},
		}},
		Upstreams: []Upstream{{
			Name:        "a",
			Pos:         at(2, 14),
			Endpoints:   []Endpoint{{Address: "b:80", Weight: 1, Pos: at(2, 17)}},
			Balance:     defaultBalance(),
			Pool:        Pool{MaxPending: 1024, QueueTimeout: time.Second, IdlePerLoop: 256, IdleTimeout: time.Minute},
			Timeouts:    UpstreamTimeouts{Connect: 5 * time.Second, TLS: 5 * time.Second, Header: 30 * time.Second, Idle: time.Minute, Tunnel: 5 * time.Minute},
			Resolve:     Resolve{Min: time.Second, Max: 5 * time.Minute, Timeout: 3 * time.Second, Family: "any"},
			ReplayBytes: 16384,
			Protocol:    "h1",
			HTTP2:       UpstreamHTTP2{Streams: 100, KeepAlive: 30 * time.Second, KeepAliveTimeout: 10 * time.Second},
			Retry:       Retry{Attempts: 3, On: []string{"connect", "refused", "stale"}, Backoff: Backoff{Jitter: "full"}, OtherEndpoint: true},
			RetryBudget: RetryBudget{Percent: 20, Floor: 3},
		}},
		Routes: []Route{
			{Name: "*", Pos: at(4, 5), Matches: []Match{{Pos: at(4, 14), Text: "*"}}, To: []Target{{Upstream: "a", Weight: 1, Pos: at(4, 23)}}, Host: "preserve"},
			{Name: "/x", Pos: at(5, 5), Matches: []Match{{Pos: at(5, 14), Text: "/x", Path: Path{Kind: PathExact, Value: "/x"}}},
				Respond: &Respond{Status: 200}, Host: "preserve"},
			{Name: "/y", Pos: at(6, 5), Matches: []Match{{Pos: at(6, 14), Text: "/y", Path: Path{Kind: PathExact, Value: "/y"}}},
				Redirect: &Redirect{To: "/z", Status: 302}, Host: "preserve"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%#v\nwant\n%#v", got, want)
	}
}

func TestFormsAreEqual(t *testing.T) {
	f := func(a, b string) {
		t.Helper()
		x, y := bare(mustParse(t, a)), bare(mustParse(t, b))
		for i := range x.Routes { // names come from the text of a match
			x.Routes[i].Name, y.Routes[i].Name = "", ""
		}
		if !reflect.DeepEqual(x, y) {
			t.Errorf("%s\nis\n%s\nbut\n%s\nis\n%s", a, x.Dump(), b, y.Dump())
		}
	}
	f(smallest+"log: debug", smallest+"log: { level: debug }")
	f(smallest+"access_log: /var/log/a", smallest+"access_log: { to: /var/log/a }")
	f(smallest+"admin: unix:/a", smallest+"admin: { bind: unix:/a }")
	up := smallest + "upstreams: { a: { endpoints: [\"b:80\"], retry: %s } }\n"
	f(fmt.Sprintf(up, "on"), fmt.Sprintf(up, "2"))
	f(fmt.Sprintf(up, "off"), fmt.Sprintf(up, "{ attempts: 1 }"))
	f(fmt.Sprintf(up, "{ on: [503, 5xx, reset] }"), fmt.Sprintf(up, "{ on: [reset, 5xx, \"503\"], attempts: 2, methods: idempotent, retry_after: respect, budget: { percent: 20% } }"))
	hedge := smallest + "upstreams: { a: { endpoints: [\"b:80\", \"c:80\"], hedge: %s } }\n"
	f(fmt.Sprintf(hedge, "p95"), fmt.Sprintf(hedge, "{ after: p95.0, at_most: 1 }"))
	f(smallest+"admin: off", smallest+"admin: { bind: off }")
	f(smallest, "---\n# a comment\r\n"+strings.ReplaceAll(smallest, "\n", "\r\n"))
	f(smallest, "\ufeff"+smallest)
	f(smallest, "---\nlisteners:\n  http:\n    bind:\n    - :80\nroutes:\n- match:\n    host: \"*\"\n  respond:\n    status: 200\n")

	route := func(match string) string {
		return "listeners: { http: { bind: \":80\" }, other: { bind: \":81\" } }\nroutes:\n  - { match: \"*\", respond: {} }\n  - match: " + match +
			"\n    respond: {}\n"
	}
	f(route("GET,HEAD Example.com/a/*"), route("{ methods: [GET, HEAD], host: example.com, path: /a/* }"))
	f(route("'*.example.com'"), route("{ host: '*.example.com' }"))
	f(route("GET *"), route("{ method: GET, host: '*' }"))
	f(route("/a/{id}"), route("[{ path: '/a/{id}' }]"))
	f(route("example.com~^/v[0-9]+/"), route("{ host: example.com, path: '~^/v[0-9]+/' }"))
	f(route("{ header: { a: 1 }, cookie: { b: true }, method: PUT }"), route("{ headers: { A: '1' }, cookies: { b: true }, methods: [PUT] }"))
	f(route("{ client: 10.0.0.1, content_type: A/B, listener: http }"), route("{ client: [10.0.0.1/32], content_type: [a/b], listener: [http] }"))

	action := func(rest string) string {
		return "listeners: { http: { bind: \":80\" } }\nupstreams:\n  a: [c:80]\nroutes:\n  - match: /a/*\n    " + rest + "\n  - { match: /b, to: a }\n"
	}
	f(action("to: a"), action("to: { a: 1 }"))
	f(action("redirect: /x"), action("redirect: { to: /x, status: 302 }"))
	f(action("respond: { headers: { X-A: b } }"), action("respond: { headers: { X-A: [b] } }"))
	f(action("to: a"), strings.Replace(action("to: a"), "[c:80]", "{ endpoints: [{ address: 'C:80', weight: 1 }] }", 1))
	f(action("to: a"), strings.Replace(action("to: a"), "[c:80]", "{ endpoints: [c:80] }", 1))
}

// TestColonInFlow holds plain scalars with colons inside of flow mappings, which the parser by itself reads as maps.
func TestColonInFlow(t *testing.T) {
	cfg := mustParse(t, "listeners: { http: { bind: [127.0.0.1:80, \":81\", unix:/a], real_ip: { trusted: [fd00::/8, 10.0.0.1] } } }\n"+
		"upstreams: { a: { endpoints: [ 10.0.0.1:80, h:81, {address: h:82}, unix:/b ] } }\nroutes: [{ match: [e.com/a:b, GET f.com/c], to: a }]\n")
	got := fmt.Sprint(cfg.Listeners[0].Binds[0], cfg.Listeners[0].Binds[1], cfg.Listeners[0].Binds[2], cfg.Listeners[0].RealIP.Trusted)
	for _, e := range cfg.Upstreams[0].Endpoints {
		got += " " + e.Address
	}
	got += " " + cfg.Routes[0].Matches[0].Path.Value
	if want := "127.0.0.1:80 :81 unix:/a [fd00::/8 10.0.0.1/32] 10.0.0.1:80 h:81 h:82 unix:/b /a:b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRouteNamesAreUnique(t *testing.T) {
	cfg := mustParse(t, "listeners: { a: { bind: \":80\" } }\nroutes:\n"+
		"  - { match: /a, respond: {} }\n  - { match: { path: /a, header: { x: 1 } }, respond: {} }\n"+
		"  - { name: /a (2), match: /b, respond: {} }\n  - { match: { path: /a, method: GET, query: { x: 2 } }, respond: {} }\n")
	var names []string
	for _, r := range cfg.Routes {
		names = append(names, r.Name)
	}
	if got, want := strings.Join(names, ", "), "/a, /a (3), /a (2), GET /a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestIncludesStandWhereTheyAreWritten(t *testing.T) {
	files := map[string]string{
		"etc/b/2.yaml":   "routes:\n- { match: /2, to: x }\n",
		"etc/b/1.yaml":   "include: c/*.yaml\nroutes:\n- { match: /1, to: x }\n",
		"etc/b/c/x.yaml": "upstreams: { x: [h:80] }\nroutes: []\n",
		"etc/none.yaml":  "",
	}
	cfg, problems := Parse("etc/sluice.yaml", []byte("listeners: { a: { bind: \":80\" } }\nroutes:\n- { match: /0, to: x }\ninclude: [b/*.yaml, none.yaml, 'z/*']\n"), filesEnv(files))
	if cfg == nil {
		t.Fatal(problems)
	}
	var got []string
	for _, r := range cfg.Routes {
		got = append(got, r.Name, r.Pos.String())
	}
	want := "/0 etc/sluice.yaml:3:3 /1 etc/b/1.yaml:3:3 /2 etc/b/2.yaml:2:3"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	body := write("body.html", "hello\n")
	t.Setenv("SLUICE_TEST_HEADER", "from the environment")
	main := write("sluice.yaml", "include: [conf.d/*.yaml]\nlisteners: { a: { bind: \":80\" } }\n")
	write("conf.d/a.yaml", "routes:\n- { match: /, respond: { body: 'file:"+body+"', headers: { X-A: 'env:SLUICE_TEST_HEADER' } } }\n")
	cfg, problems := Load(main)
	if len(problems) > 0 || cfg == nil {
		t.Fatal(problems)
	}
	a := cfg.Routes[0].Respond
	if a.Body.Reveal() != "hello" || a.Headers[0].Value.Reveal() != "from the environment" {
		t.Errorf("got %q and %q", a.Body.Reveal(), a.Headers[0].Value.Reveal())
	}
	write("conf.d/b.yaml", "routs: []\n")
	if cfg, problems = Load(main); cfg != nil || !strings.HasPrefix(problems.String(), dir+"/conf.d/b.yaml:1:1: unknown key \"routs\"\n") {
		t.Errorf("got %v, %s", cfg, problems)
	}
	if cfg, problems = Load(dir + "/none"); cfg != nil || problems.String() != dir+"/none: cannot read the file: no such file or directory\n" {
		t.Errorf("got %v, %s", cfg, problems)
	}
	if cfg, problems = Load(dir); cfg != nil || !problems.Refused() {
		t.Errorf("got %v, %s", cfg, problems)
	}
}

// TestHostileInput gives what is large, deep or endless. Each must be answered soon, and with the right words.
func TestHostileInput(t *testing.T) {
	f := func(name, text string, env Env, want string) {
		t.Helper()
		start := time.Now()
		cfg, problems := Parse("sluice.yaml", []byte(text), env)
		if cfg != nil || !strings.Contains(problems.String(), want) {
			t.Errorf("%s: got %s, want %q", name, clip(problems.String()), want)
		}
		if d := time.Since(start); d > time.Minute { // on a busy machine, with the race detector; what is quadratic takes hours
			t.Errorf("%s took %s", name, d)
		}
	}
	const mib = 1 << 18
	f("brackets", "routes: "+strings.Repeat("[", mib), Env{}, "nested more than 64 deep")
	f("braces", strings.Repeat("{a: ", mib), Env{}, "nested more than 64 deep")
	f("dashes", "routes:\n"+strings.Repeat("- ", mib), Env{}, "nested more than 64 deep")
	f("keys", strings.Repeat("? ", mib), Env{}, "nested more than 64 deep")
	f("tags", "loops: "+strings.Repeat("!a ", mib), Env{}, "sluice.yaml:1:")
	f("aliases", "loops: "+strings.Repeat("*a ", mib), Env{}, "sluice.yaml:1:")
	f("quotes", "loops: "+strings.Repeat(`"`, mib), Env{}, "sluice.yaml:1:")
	f("large", strings.Repeat("#", maxFileBytes+1), Env{}, "the file is larger than 16 MiB")
	f("unknown keys", strings.Repeat("a: b\n", mib/8), Env{}, "problems are not shown")

	deep := ""
	for i := range 1000 {
		deep += strings.Repeat(" ", i) + "a:\n"
	}
	f("indentation", deep, Env{}, `unknown key "a"`)

	laughs := "routes:\n- &a { match: /a, respond: {} }\n- match: &m [/0" + strings.Repeat(", /x", 9000) + "]\n  respond: {}\n" +
		strings.Repeat("- { match: *m, respond: {} }\n", 10_000)
	f("laughs", laughs, Env{}, "aliases make this configuration larger than is read")
	f("itself", "routes: &a [*a]", Env{}, `"route" must be a map`)

	endless := Env{
		ReadFile: func(path string) ([]byte, error) { return []byte("include: x/a.yaml\n"), nil },
	}
	f("endless", "include: a.yaml", endless, "more than 8 deep")
	self := Env{ReadFile: func(path string) ([]byte, error) { return []byte("include: sluice.yaml\n"), nil }}
	f("cycle", "include: a.yaml", self, `cannot include "sluice.yaml": it would include itself`)
	many := Env{
		ReadFile: func(path string) ([]byte, error) { return []byte("# empty\n"), nil },
		Glob: func(pattern string) (paths []string, err error) {
			for i := range 2000 {
				paths = append(paths, fmt.Sprint(i))
			}
			return paths, nil
		},
	}
	f("many", "include: '*'", many, "there are more than 1024 files")
	big := many
	big.ReadFile = func(path string) ([]byte, error) { return []byte(strings.Repeat("#", mib)), nil }
	f("big", "include: '*'", big, "the files together are larger than 64 MiB")

	text := "listeners: { a: { bind: \":80\" } }\nroutes:\n"
	for i := range maxPatterns + 1 {
		text += fmt.Sprintf("- { match: \"~^/%d$\", respond: {} }\n", i)
	}
	f("patterns", text, Env{}, "more than 10000 different regular expressions")
}
