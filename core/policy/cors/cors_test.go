package cors

import "testing"

func TestAllows(t *testing.T) {
	p := New(Spec{Origins: []string{"https://shop.example", "http://[::1]:3000", "https://*.b.example", "http://*.c.example:8080"}})
	f := func(origin string, want bool) {
		t.Helper()
		if got := p.allows([]byte(origin)); got != want {
			t.Errorf("%q: got %v", origin, got)
		}
	}
	f("https://shop.example", true)
	f("http://[::1]:3000", true)
	f("https://x.b.example", true)
	f("https://x.y.b.example", true)
	f("http://x.c.example:8080", true)
	for _, bad := range []string{"", "null", "*", "http://shop.example", "https://shop.example:8443", "https://shop.example.evil", "https://evilshop.example",
		"https://b.example", "https://.b.example", "https://xb.example", "http://x.b.example", "https://x.b.example:8443", "https://evil/.b.example",
		"https://evil:1/x.b.example", "https://u@x.b.example", "https://X.b.example", "http://x.c.example", "https://shop.example/", "https://shop.example\x00"} {
		f(bad, false)
	}
	p = New(Spec{Origins: []string{"*"}})
	f("https://anything.example", true)
	f("null", true)
}
