package upstream

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/lb"
)

func TestAffinity(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member)
	source := func(from KeyFrom, name string) KeySource { return NewKeySource(from, name, nil) }
	f := func(fields, query, want string, sources ...KeySource) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			for field := range strings.SplitSeq(fields, "\n") {
				if name, value, ok := strings.Cut(field, ": "); ok {
					x.Request.AddName(name, []byte(value))
				}
			}
			x.Request.Path, x.Request.Query = []byte("/a/b"), []byte(query)
			x.AddParam("id", []byte("seven"))
			x.Client.Addr = netip.MustParseAddr("192.0.2.1")
			b := &Balancing{Keys: sources}
			var given cookies
			b.affinity(x, &given)
			if given.count > 0 {
				t.Errorf("%q?%s: a cookie is issued", fields, query)
			}
			if x.Attempt.Keyed != (want != "") || want != "" && want != "ip" && x.Attempt.Key != lb.HashString(want) ||
				want == "ip" && x.Attempt.Key != lb.HashAddr(x.Client.Addr) {
				t.Errorf("%q?%s: the key is not that of %q", fields, query, want)
			}
		})
	}
	f("", "", "")
	f("", "", "ip", source(FromClient, ""))
	f("X-User: ann", "", "ann", source(FromHeader, "x-user"))
	f("X-User: ann\nX-User: bob", "", "ann", source(FromHeader, "X-User"))
	f("X-User: ", "user=", "ip", source(FromHeader, "X-User"), source(FromQuery, "user"), source(FromClient, ""))
	f("User-Agent: me", "", "me", source(FromHeader, "user-agent"))
	f("Host: a.example", "", "", source(FromHeader, "X-User"))
	f("Cookie: a=b; sid=\"12\"", "", "12", source(FromCookie, "sid"))
	f("Cookie: a=b", "", "", source(FromCookie, "sid"))
	f("Cookie: sid=", "", "ip", source(FromCookie, "sid"), source(FromClient, ""))
	f("", "a=1&user=2&user=3", "2", source(FromQuery, "user"))
	f("", "a=1&users=2&xuser=3&user", "", source(FromQuery, "user"))
	f("", "us%65r=a%2Bb+%63", "a+b c", source(FromQuery, "user"))
	f("", "a+b=c%", "c%", source(FromQuery, "a b"))
	f("", "user=1", "/a/b", source(FromPath, ""))
	f("", "", "seven", source(FromParameter, "id"))
	f("", "", "", source(FromParameter, "other"))
	f("X-B: b", "q=c", "b", source(FromHeader, "X-A"), source(FromHeader, "X-B"), source(FromQuery, "q"))
}

// A passed connection has no request: what stands in the memory of the exchange before it is nobody's key.
func TestAffinityOfPassages(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member)
	h.on(0, func() {
		x := h.workers[0].Begin()
		defer h.workers[0].End(x)
		x.Passed = true
		x.Request.Path = []byte("/")
		b := &Balancing{Keys: []KeySource{NewKeySource(FromPath, "", nil), NewKeySource(FromCookie, "sid", &StickySpec{Path: "/"})}}
		var given cookies
		if b.affinity(x, &given); given.count > 0 || x.Attempt.Keyed {
			t.Error("it has a key")
		}
	})
}

func TestStickyCookie(t *testing.T) {
	h := newHost(t, 1, defaults(), newEndpoint(t).member)
	f := func(spec StickySpec, want string) {
		t.Helper()
		h.on(0, func() {
			x := h.workers[0].Begin()
			defer h.workers[0].End(x)
			b := &Balancing{Keys: []KeySource{NewKeySource(FromCookie, "sid", &spec)}}
			var given cookies
			b.affinity(x, &given)
			id := &given.list[0].id
			if given.count != 1 || !x.Attempt.Keyed || x.Attempt.Key != lb.HashBytes(id[:]) {
				t.Fatal("no cookie is issued, or the key is not its hash")
			}
			given.give(&x.Response)
			if got := string(x.Response.Get(core.FieldSetCookie)); got != "sid="+string(id[:])+want {
				t.Errorf("got %q", got)
			}
			y := h.workers[0].Begin()
			defer h.workers[0].End(y)
			y.Request.Add(core.FieldCookie, append([]byte("sid="), id[:]...))
			var other cookies
			if b.affinity(y, &other); other.count > 0 || y.Attempt.Key != x.Attempt.Key {
				t.Error("who brings the cookie is somebody else")
			}
		})
	}
	f(StickySpec{Path: "/"}, "; Path=/")
	f(StickySpec{TTL: time.Hour, Path: "/a", Secure: true, HTTPOnly: true, SameSite: "Lax"}, "; Path=/a; Max-Age=3600; Secure; HttpOnly; SameSite=Lax")
}
