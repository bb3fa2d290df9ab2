package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzParse: nothing panics or takes long, what is accepted keeps the invariants and survives Dump, and nothing depends
// on where a text is cut for the parser.
func FuzzParse(f *testing.F) {
	f.Add([]byte(smallest))
	f.Add(manyRoutes(3, true))
	f.Add(manyRoutes(3, false))
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	archives, err := filepath.Glob("testdata/problems/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		archive, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		files, _ := archiveFiles(string(archive))
		f.Add([]byte(files["sluice.yaml"]))
	}
	for _, text := range []string{
		"listeners: { l: { bind: \":80\" } }\nroutes:\n- match: \"/a\n- b\"\n  respond: {}\n- { match: /c, respond: {} }\n",
		"listeners: { l: { bind: \":80\" } }\nroutes:\n- { match: [/a,\n- /b], respond: {} }\n",
		"listeners:\n  a: {\n    bind: \":80\"\n  }\n  b:\n    bind: \":81\"\nroutes:\n- match: [\n    /a\n]\n",
		"upstreams:\n  a:\n  - h:80\n  b:\n  - h:81\n  ? c\n  : [h:82]\n",
		"upstreams:\n  a: [h:80] # x\n  # y\n\n  'b c': |\n    h:80\n  \"d\": >-\n    h:80\n",
		"include: [a.yaml, b.yaml]\nlisteners: &a\n  b: &c { bind: \":80\" }\n  d: *c\n",
	} {
		f.Add([]byte(text))
	}
	env := filesEnv(map[string]string{
		"a.yaml": "upstreams: { inc: [h:80] }\n", "b.yaml": "include: a.yaml\nroutes: [{ match: /inc, to: inc }]\n",
		"env": "WORD=s3cret\n", "/word": "s3cret\n", "ends.yaml": "- h:80\n- { address: srv:s, weight: 2 }\n",
	})
	f.Add([]byte("upstreams: { a: { file: ends.yaml, labels: { a: b } }, b: [srv:x.y, { file: /no }] }\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		start := time.Now()
		cfg, problems := Parse("sluice.yaml", text, env)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
		printed := problems.String()
		if (cfg == nil) != problems.Refused() {
			t.Errorf("config %v, problems:\n%s", cfg, printed)
		}
		again, more := parseChunked("sluice.yaml", text, env, 1)
		if (again == nil) != (cfg == nil) || cfg != nil && more.String() != printed { // of a syntax error the words may differ
			t.Errorf("in chunks:\n%s\nelse:\n%s", more, printed)
		}
		if cfg == nil || again == nil {
			return
		}
		if err := check(cfg); err != nil {
			t.Errorf("%s", err)
		}
		dump := cfg.dump(true)
		if !bytes.Equal(dump, again.dump(true)) || !bytes.Equal(cfg.Dump(), again.Dump()) {
			t.Errorf("in chunks:\n%s\nelse:\n%s", again.dump(true), dump)
		}
		if bytes.Contains(dump, []byte("s3cret")) && !bytes.Contains(text, []byte("s3cret")) {
			t.Errorf("the dump shows a secret:\n%s", dump)
		}
		reread, problems := Parse("sluice.yaml", dump, env)
		if reread == nil {
			t.Fatalf("the dump is refused:\n%s\n%s", problems, dump)
		}
		if second := reread.dump(true); !bytes.Equal(dump, second) {
			t.Errorf("got\n%s\nand then\n%s", dump, second)
		}
	})
}

// check holds what every Config that Parse returns promises.
func check(c *Config) error {
	if c.Loops < 0 || c.Loops > 1024 || c.Drain.Time < 0 || c.Drain.Tunnels < c.Drain.Time || c.Drain.Tunnels > maxDuration || c.AccessLog.Sample < 0 || c.AccessLog.Sample > 1 || c.AccessLog.Queue < 1 {
		return fmt.Errorf("bounds: %+v", c)
	}
	listeners, upstreams, names := map[string]*Listener{}, map[string]*Upstream{}, map[string]bool{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if listeners[l.Name] != nil || l.Name == "" || len(l.Binds) == 0 || l.Pos.Line < 1 {
			return fmt.Errorf("listener: %+v", l)
		}
		listeners[l.Name] = l
		for _, b := range l.Binds {
			if b.Addr.IsValid() == (b.Path != "") || b.Pos.Line < 1 || b.Addr.Addr().Is4In6() {
				return fmt.Errorf("bind: %+v", b)
			}
		}
		if t := l.Timeouts; min(t.Header, t.Idle, t.Body, t.Write) < time.Millisecond || max(t.Header, t.Idle, t.Body, t.Write) > maxDuration {
			return fmt.Errorf("timeouts: %+v", t)
		}
		if m := l.Limits; m.HeaderBytes < 1<<10 || m.HeaderBytes > 256<<10 || m.Headers < 1 || m.Headers > 1000 || m.BodyBytes < 0 || m.Connections < 0 {
			return fmt.Errorf("limits: %+v", m)
		}
		if h := l.HTTP2; h.Streams < 1 || h.Streams > 1000 || min(h.KeepAliveTimeout, h.MaxAgeGrace) < time.Millisecond || min(h.KeepAlive, h.MaxAge) < 0 {
			return fmt.Errorf("http2: %+v", h)
		}
		if l.RealIP != nil && len(l.RealIP.Trusted) == 0 || l.ProxyProtocol != nil && len(l.ProxyProtocol.From) == 0 {
			return fmt.Errorf("nobody is trusted: %+v", l)
		}
	}
	if len(listeners) == 0 {
		return fmt.Errorf("no listener")
	}
	for _, l := range listeners {
		if to := listeners[l.Redirect]; l.Redirect != "" && (to == nil || to.Redirect != "") {
			return fmt.Errorf("redirect: %+v", l)
		}
	}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		if upstreams[u.Name] != nil || u.Name == "" || len(u.Endpoints)+len(u.Files) == 0 || u.Resolve.Min < time.Second || u.Resolve.Max < u.Resolve.Min || u.Resolve.Every > 0 && u.Resolve.Every < time.Second || u.ReplayBytes > maxReplayBytes || u.Balance.Algorithm == "" {
			return fmt.Errorf("upstream: %+v", u)
		}
		upstreams[u.Name] = u
		for _, e := range u.Endpoints {
			if e.Address == "" || e.Weight < 0 || e.Weight > 1000 || e.Pos.Line < 1 || e.Address != strings.ToLower(e.Address) && !strings.HasPrefix(e.Address, "unix:") {
				return fmt.Errorf("endpoint: %+v", e)
			}
		}
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		if names[r.Name] || r.Name == "" {
			return fmt.Errorf("the name of a route is empty or not unique: %q", r.Name)
		}
		names[r.Name] = true
		if err := checkRoute(r, listeners, upstreams); err != nil {
			return err
		}
	}
	return nil
}

func checkRoute(r *Route, listeners map[string]*Listener, upstreams map[string]*Upstream) error {
	actions, sum := 0, 0
	for _, given := range []bool{len(r.To) > 0, r.Respond != nil, r.Redirect != nil} {
		if given {
			actions++
		}
	}
	paths := 0
	for _, given := range []bool{r.StripPrefix != "", r.ReplacePrefix != nil, r.Rewrite != nil} {
		if given {
			paths++
		}
	}
	if actions != 1 || paths > 1 || len(r.Matches) == 0 || r.Host == "" || r.Pos.Line < 1 {
		return fmt.Errorf("route: %+v", r)
	}
	for _, t := range r.To {
		sum += t.Weight
		if upstreams[t.Upstream] == nil || t.Pos.Line < 1 {
			return fmt.Errorf("target: %+v", t)
		}
	}
	if len(r.To) > 0 && sum == 0 {
		return fmt.Errorf("weights: %+v", r)
	}
	if r.Rewrite != nil && r.Rewrite.Pattern == nil {
		return fmt.Errorf("rewrite: %+v", r)
	}
	if a := r.Respond; a != nil {
		for _, h := range a.Headers {
			if !isToken(h.Name) || strings.ContainsAny(h.Value.Reveal(), "\r\n\x00") {
				return fmt.Errorf("header: %q: %q", h.Name, h.Value.Reveal())
			}
		}
	}
	for j := range r.Matches {
		m := &r.Matches[j]
		if m.Text == "" || m.Pos.Line < 1 || hostProblem(m.Host.Name) != "" && m.Host.Name != "" {
			return fmt.Errorf("match: %+v", m)
		}
		if p := m.Path; (p.Regex != nil) != (p.Kind == PathRegex) || p.Kind == PathExact && p.Value[0] != '/' || p.Kind == PathPrefix && p.Value != "" && p.Value[0] != '/' {
			return fmt.Errorf("path: %+v", p)
		}
		for _, name := range m.Listeners() {
			if listeners[name] == nil {
				return fmt.Errorf("match on no listener: %+v", m)
			}
		}
		further := m.further()
		for _, fields := range [][]FieldMatch{further.Headers, further.Query, further.Cookies} {
			for _, f := range fields {
				if f.Name == "" || (f.Regex != nil) != (f.Op == FieldRegex) {
					return fmt.Errorf("field: %+v", f)
				}
			}
		}
	}
	return nil
}

// TestChunks cuts a file of many listeners, upstreams and routes in chunks of all sizes.
func TestChunks(t *testing.T) {
	var b strings.Builder
	b.WriteString("listeners:\n")
	for i := range 300 {
		fmt.Fprintf(&b, "  l%d:\n    bind: \"127.0.0.1:%d\" # %d\n", i, 1000+i, i)
	}
	b.WriteString("upstreams:\n  # list\n")
	for i := range 2 * chunkKeys {
		fmt.Fprintf(&b, "  u%d:\n  - h%d:80\n  - h:80\n\n", i, i)
	}
	b.WriteString("routes:\n")
	for i := range 2 * chunkKeys {
		fmt.Fprintf(&b, "- match: >-\n    /a/%d\n\n  to: u%d\n# comment\n", i, i)
	}
	want, problems := parseChunked("sluice.yaml", []byte(b.String()), Env{}, maxFileBytes)
	if want == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	if len(want.Listeners) != 300 || len(want.Upstreams) != 2*chunkKeys || len(want.Routes) != 2*chunkKeys {
		t.Errorf("got %d, %d, %d", len(want.Listeners), len(want.Upstreams), len(want.Routes))
	}
	if at := want.Routes[100].To[0].Pos; at.Line != 1+600+1+1+4*2*chunkKeys+1+100*5+4 || at.Column != 7 {
		t.Errorf("the target of route 100 is at %s", at)
	}
	for size := 1; size < 8192; size *= 3 {
		got, problems := parseChunked("sluice.yaml", []byte(b.String()), Env{}, size)
		if got == nil || !bytes.Equal(got.Dump(), want.Dump()) || got.Routes[77].To[0].Pos != want.Routes[77].To[0].Pos {
			t.Errorf("chunks of %d bytes: %s", size, problems)
		}
	}
}
