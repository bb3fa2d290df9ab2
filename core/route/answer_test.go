package route

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// worker has a loop that does not run: it is asked for the time only.
var worker = sync.OnceValue(func() *core.Worker {
	l, err := loop.New(loop.Options{})
	if err != nil {
		panic(err)
	}
	return core.NewGateway(&core.Snapshot{}, nil).NewWorker(l)
})

// answering is request for an exchange that can be answered.
func answering(t testing.TB, text string, lines ...string) *core.Exchange {
	t.Helper()
	x := worker().Begin()
	x.Listener = &core.Listener{Name: "main", Scheme: "http"}
	receive(t, x, text, lines...)
	return x
}

func TestRespond(t *testing.T) {
	a, err := NewRespond(RespondSpec{Status: 418, ContentType: "text/plain", Body: "teapot", Headers: []HeaderLine{
		{"X-A", " 1 "}, {"x-a", "2"}, {"Cache-Control", ""}}})
	if err != nil {
		t.Fatal(err)
	}
	x := answering(t, "/")
	a.Answer(x)
	_, lines, _ := strings.Cut(string(x.Response.AppendLines(nil)), "\r\n") // without Date
	if want := "Content-Type: text/plain\r\nX-A: 1\r\nx-a: 2\r\nCache-Control: \r\n"; lines != want {
		t.Errorf("lines are %q, want %q", lines, want)
	}
	if x.Response.Status != 418 || x.Response.ContentLength != 6 || x.Response.Body == nil {
		t.Errorf("answer is %d with %d bytes", x.Response.Status, x.Response.ContentLength)
	}
	if string(x.Response.Get(core.FieldCacheControl)) != "" || !x.Response.Has(core.FieldCacheControl) {
		t.Error("a known field is not found by its id")
	}
	if n := testing.AllocsPerRun(100, func() { a.Answer(x) }); n != 0 {
		t.Errorf("an answer allocates %v times", n)
	}
}

func TestRespondContentType(t *testing.T) {
	a, err := NewRespond(RespondSpec{Status: 200, ContentType: "text/plain", Body: "{}",
		Headers: []HeaderLine{{"content-type", "application/json"}}})
	if err != nil {
		t.Fatal(err)
	}
	x := answering(t, "/")
	a.Answer(x)
	if got := string(x.Response.AppendLines(nil)); strings.Count(strings.ToLower(got), "content-type") != 1 ||
		!strings.Contains(got, "Content-Type: application/json\r\n") {
		t.Errorf("lines are %q", got)
	}
}

func TestRespondRefuses(t *testing.T) {
	for want, s := range map[string]RespondSpec{
		"status 199":      {Status: 199},
		"status 600":      {Status: 600},
		"status 0":        {},
		"204 has none":    {Status: 204, Body: "x"},
		"304 has none":    {Status: 304, Body: "x"},
		"content type":    {Status: 200, ContentType: "a\r\nb: c"},
		"no token":        {Status: 200, Headers: []HeaderLine{{"a b", "c"}}},
		"control byte":    {Status: 200, Headers: []HeaderLine{{"a", "b\nc"}}},
		"by itself":       {Status: 200, Headers: []HeaderLine{{"Content-Length", "1"}}},
		`"CONNECTION": t`: {Status: 200, Headers: []HeaderLine{{"CONNECTION", "close"}}},
	} {
		if _, err := NewRespond(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gave %v, want %q", s, err, want)
		}
	}
}

func TestRedirect(t *testing.T) {
	params := []string{"id", "to"}
	f := func(to, in, want string, values ...string) {
		t.Helper()
		a, err := NewRedirect(to, 301, params)
		if err != nil {
			t.Error(err)
			return
		}
		x := answering(t, in)
		for i, v := range values {
			x.AddParam(params[i], []byte(v))
		}
		a.Answer(x)
		if got := string(x.Response.Get(core.FieldLocation)); got != want || x.Response.Status != 301 || x.Err != nil {
			t.Errorf("%s for %s gave %d %q, want %q, %v", to, in, x.Response.Status, got, want, x.Err)
		}
	}
	f("https://{host}{path}?{query}", "a.com:8080/x/%2F?y=z&w[]=1", "https://a.com/x/%2F?y=z&w[]=1")
	f("https://{host}{path}?{query}", "a.com/x", "https://a.com/x")
	f("https://{host}{path}?a=b&{query}", "a.com/x?", "https://a.com/x?a=b")
	f("https://{host}:8443{path}", "[::1]:80/x", "https://[::1]:8443/x")
	f("{scheme}://new.com/{id}/x", "/", "http://new.com/7/x", "7")
	f("/new{path}", "/a", "/new/a")
	f("/a?next={path}&id={id}#x", "/p+q&r=s", "/a?next=/p%2Bq%26r%3Ds&id=a%26b#x", "a&b")
	f("/a/{id}", "/", "/a/%7B%22%5E%7C%5B%5D%60%3C%3E%5C%25zz%C3%A9%23%3F%0D%0A", "{\"^|[]`<>\\%zz\u00e9#?\r\n")
	f("/a?{query}", "/?x=\\\"<", "/a?x=%5C%22%3C")
	f("app+x://open/{id}", "/", "app+x://open/a%20b", "a b")
	f("https://{to}.a.com:80/{id}", "/", "https://Y-1.a.com:80/x", "x", "Y-1")
	// No way to another host.
	f("{path}", "//evil.com/x", "/evil.com/x")
	f("{path}", "///evil.com", "/evil.com")
	f("/{path}", "/evil.com", "/evil.com")
	f("/{id}{path}", "//e", "/evil//e", "evil")
	f("/{id}/e", "/", "/e", "")
	f("https://a.com{path}", "//evil.com", "https://a.com//evil.com")
	f("https://a.com{path}", "OPTIONS a.com*", "https://a.com/")
}

func TestRedirectFails(t *testing.T) {
	f := func(to, in string, value string) {
		t.Helper()
		a, err := NewRedirect(to, 302, []string{"id"})
		if err != nil {
			t.Error(err)
			return
		}
		x := answering(t, in)
		x.AddParam("id", []byte(value))
		a.Answer(x)
		if x.Err == nil || x.Response.Status != 400 || x.Response.Has(core.FieldLocation) {
			t.Errorf("%s gave %d %q", to, x.Response.Status, x.Response.Get(core.FieldLocation))
		}
	}
	f("https://{host}/", "/", "")
	f("https://{host}/", "a@b/", "")
	f("https://{host}/", "a\\b/", "")
	for _, v := range []string{"", "evil.com", "a@b", "a:80", `evil\`, "a%2Fb", "a b", strings.Repeat("a", 64)} {
		f("https://{id}.a.com/", "/", v)
	}
}

func TestNewRedirectRefuses(t *testing.T) {
	for to, want := range map[string]string{
		"":                        "neither",
		"a":                       "neither",
		"//a.com":                 "neither",
		"{id}/x":                  "may not stand",
		"{host}/x":                "may not stand",
		"{scheme}x://a":           "neither",
		"{scheme}{scheme}://a":    "neither",
		"{scheme}":                "neither",
		"://a.com":                "neither",
		"java script:x":           "URI",
		"javascript:alert(1)":     "neither",
		"/a\r\nb":                 "URI",
		"/a b":                    "URI",
		"/é":                      "URI",
		`/\a`:                     "URI",
		"/{x}":                    "no parameter {x}",
		"/{id":                    "not closed",
		"/id}":                    "closes nothing",
		"/{query}":                "may not stand",
		"https://{query}/":        "may not stand",
		"https://{scheme}/":       "may not stand",
		"https://{id}/":           "before the rest of a domain",
		"https://a.com{id}":       "before the rest of a domain",
		"https://{id}{path}":      "before the rest of a domain",
		"https://{id}.":           "before the rest of a domain",
		"https://{id}:80/":        "before the rest of a domain",
		"https://{id}-x.a.com/":   "before the rest of a domain",
		"https://{id}.a.com{id}/": "before the rest of a domain",
	} {
		if _, err := NewRedirect(to, 302, []string{"id"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, want %q", to, err, want)
		}
	}
	for _, status := range []int{0, 200, 300, 304, 309} {
		if _, err := NewRedirect("/", status, nil); err == nil {
			t.Errorf("status %d was taken", status)
		}
	}
}

func TestRedirectDoesNotAllocate(t *testing.T) {
	a, err := NewRedirect("https://{host}{path}?{query}", 308, nil)
	if err != nil {
		t.Fatal(err)
	}
	x := answering(t, "a.com/x?y")
	if n := testing.AllocsPerRun(100, func() { a.Answer(x) }); n != 0 {
		t.Errorf("a redirect allocates %v times", n)
	}
}

// FuzzRedirect sends every template anywhere, and expects to be sent where the template says.
func FuzzRedirect(f *testing.F) {
	f.Add("//evil.com", "a", "x")
	f.Add("/\\evil.com", "/", "evil.com/")
	f.Add("/a", "%0d%0a", "@evil.com:80")
	templates := []string{"{path}", "/{id}", "/{id}/{path}?{query}", "/x{path}", "/{id}{path}?n={path}&i={id}&{query}#{id}",
		"https://a.com{path}?{query}", "https://{id}.a.com{path}", "https://a.com/{id}"}
	f.Fuzz(func(t *testing.T, path, id, query string) {
		for _, to := range templates {
			a, err := NewRedirect(to, 302, []string{"id"})
			if err != nil {
				t.Fatal(err)
			}
			x := answering(t, "/")
			x.Request.Path, x.Request.Query = []byte("/"+path), []byte(query)
			x.AddParam("id", []byte(id))
			a.Answer(x)
			if x.Err != nil {
				continue
			}
			got := string(x.Response.Get(core.FieldLocation))
			if slices.ContainsFunc([]byte(got), func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '\\' }) {
				t.Fatalf("%q gives %q", to, got)
			}
			u, err := url.Parse(got)
			if err != nil {
				t.Fatalf("%q gives %q: %v", to, got, err)
			}
			ours := u.Host == "a.com" || strings.HasSuffix(u.Host, ".a.com")
			if strings.HasPrefix(to, "https") != ours || strings.HasPrefix(got, "//") {
				t.Fatalf("%q gives %q", to, got)
			}
		}
	})
}
