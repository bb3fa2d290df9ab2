package core

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/limits"
)

// keyed gives an exchange with a head of these lines, on a loop that does not run.
func keyed(t testing.TB, client, query string, lines ...string) *Exchange {
	t.Helper()
	l, err := loop.New(loop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Stop() })
	x := NewGateway(&Snapshot{}, nil).NewWorker(l).Begin()
	x.Route = &Route{Name: "shop"}
	x.Client.Addr, _ = netip.ParseAddr(client)
	x.Request.Query = []byte(query)
	x.AddParam("id", []byte("7"))
	const method = "GET"
	head := method
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		f := Field{Name: Span{uint32(len(head)), uint32(len(head) + len(name))}, ID: LookupField([]byte(name))}
		f.Value = Span{f.Name.End + 2, f.Name.End + 2 + uint32(len(value))}
		head += line + "\r\n"
		f.End = uint32(len(head))
		x.Request.Receive(f)
		if f.ID == FieldHost {
			x.Request.HostSpan = f.Value
		}
	}
	x.Request.MethodText = Span{0, uint32(len(method))}
	x.Request.Adopt([]byte(head))
	return x
}

func recipe(text string) *KeyRecipe {
	seed, _ := limits.ParseSeed(make([]byte, limits.SeedBytes))
	var parts []KeyPart
	for word := range strings.SplitSeq(text, " ") {
		kind, name, _ := strings.Cut(word, ":")
		k, known := ParseKeyKind(kind)
		if !known {
			panic(word)
		}
		parts = append(parts, KeyPart{k, name})
	}
	return NewKeyRecipe(seed, parts, 64)
}

// TestKeys compares keys: what is the same client is one key however it writes it, and what is another is another.
func TestKeys(t *testing.T) {
	base := []string{"Host: Shop.example:80", "X-Key: a", "Cookie: s=1; t=2", "Cookie: u=\"3\""}
	f := func(text, client, query string, same bool, lines ...string) {
		t.Helper()
		r := recipe(text)
		a, _ := r.Key(keyed(t, "2001:db8::1", "q=a&r", base...))
		b, _ := r.Key(keyed(t, client, query, lines...))
		if (a == b) != same {
			t.Errorf("%s, %s ?%s %q: same is %v", text, client, query, lines, a == b)
		}
	}
	f("global", "192.0.2.1", "", true)
	f("route method", "192.0.2.1", "", true)
	f("ip", "2001:db8::ffff:1", "", true)
	f("ip", "2001:db8:0:1::1", "", false)
	f("ip", "192.0.2.1", "", false)
	f("host", "", "", true, "host: shop.EXAMPLE")
	f("host", "", "", true, "host: shop.example.")
	f("host", "", "", false, "host: shop.example.org")
	f("header:x-key", "", "", true, "x-KEY: a")
	f("header:x-key", "", "", false, "X-Key: A")
	f("header:x-key", "", "", false, "X-Key: a", "X-Key: a")
	f("header:x-key", "", "", false)
	f("cookie:s", "", "", true, "Cookie: S=2; s=1")
	f("cookie:s", "", "", false, "Cookie: s=1; s=1")
	f("cookie:u", "", "", true, "Cookie: u=3")
	f("query:q", "", "x&%71=%61", true)
	f("query:q", "", "q=a&q=a", false)
	f("query:q", "", "q=a+", false)
	f("query:r", "", "r=", true)
	f("query:r", "", "rr", false)
	f("path:id", "", "", true)
	f("path:none", "", "", true) // missing in both
	f("ip header:x-key", "2001:db8::2", "", true, "X-Key: a")
	f("ip header:x-key", "2001:db8::2", "", false)

	x := keyed(t, "192.0.2.1", "q=bc", "X-A: a", "X-B: bc", "X-E: ")
	one, _ := recipe("header:x-a header:x-b").Key(x)
	two, _ := recipe("header:x-a query:q").Key(x)
	if one == two {
		t.Error("keys of different things are one")
	}
	empty, lacks := recipe("header:x-e").Key(x)
	none, missing := recipe("header:x-e").Key(keyed(t, "192.0.2.1", ""))
	if lacks || !missing || empty == none {
		t.Errorf("an empty value is missing: %v, none is: %v", lacks, missing)
	}
}

// TestKeyNamed makes the keys of requests of their values, as an operator writes them.
func TestKeyNamed(t *testing.T) {
	x := keyed(t, "2001:db8::1", "q=a", "Host: Shop.example", "X-Key: secret-secret")
	f := func(text, label string, ok bool, values ...string) {
		t.Helper()
		r := recipe(text)
		want, _ := r.Key(x)
		got, whole := r.Named(values)
		if whole != ok || ok && got != want {
			t.Errorf("%s of %q: %v, the key is the same: %v", text, values, whole, got == want)
		}
		if shown := string(r.AppendText(nil, x)); !strings.HasPrefix(shown, label) || strings.Contains(shown, "secret-") {
			t.Errorf("%s is shown as %q", text, shown)
		}
	}
	f("global", "global", true)
	f("ip", "ip=2001:db8::1", true, "2001:db8::9")
	f("ip", "ip=", false, "nobody")
	f("ip", "ip=", false)
	f("ip", "ip=", false, "2001:db8::9", "more")
	f("host route method", "host=shop.example route=shop method=GET", true, "SHOP.example", "shop", "GET")
	f("host", "host=shop.example", true, "shop.example.")
	f("header:x-key path:id", "header=secr...", true, "secret-secret", "7")
	f("query:q", "query=a", true, "a")
	f("cookie:c", "cookie=-", false)
}

func TestKeysAllocateNothing(t *testing.T) {
	x := keyed(t, "2001:db8::1", "q=%61&b=c", "Host: Shop.example", "X-Key: secret", "Cookie: s=1")
	r := recipe("ip route method host header:x-key cookie:s query:b path:id")
	r.Key(x)
	if n := testing.AllocsPerRun(100, func() { r.Key(x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	none := recipe("query:none")
	if n := testing.AllocsPerRun(100, func() { none.Key(x) }); n > 0 {
		t.Errorf("%v allocations for an argument that is not there", n)
	}
}

// TestGRPCStatusOfFailures gives each failure the status that a client of gRPC acts upon.
func TestGRPCStatusOfFailures(t *testing.T) {
	x := keyed(t, "192.0.2.1", "")
	for status, want := range map[int]int{400: 13, 401: 16, 403: 7, 404: 12, 413: 8, 429: 8, 500: 13, 502: 14, 503: 14, 504: 14, 418: 2} {
		if got := x.grpcStatus(&Error{Status: status}); got != want {
			t.Errorf("%d is %d, want %d", status, got, want)
		}
	}
}

// TestKeysOfConsumers makes keys of what policies before a limit have found out; what they have not is missing, and never what a client says.
func TestKeysOfConsumers(t *testing.T) {
	f := func(text, consumer, tenant, claim, upstream, want string) {
		t.Helper()
		x := keyed(t, "192.0.2.1", "sub=a&consumer=a", "X-Consumer-Name: a", "Consumer: a")
		x.Route = &Route{Name: "r", Upstream: upstream}
		if consumer != "" {
			x.Consumer = &Consumer{Name: consumer, Tenant: tenant}
		}
		if claim != "" {
			x.Claims = NewClaimTexts([]string{"sub"}, []string{claim})
		}
		r := recipe(text)
		k, missing := r.Key(x)
		if got := string(r.AppendText(nil, x)); got != want || missing != strings.Contains(want, "=-") {
			t.Errorf("%s: %s, missing %t, want %s", text, got, missing, want)
		}
		if missing {
			return
		}
		var values []string
		for part := range strings.FieldsSeq(want) {
			_, v, _ := strings.Cut(part, "=")
			values = append(values, v)
		}
		if named, ok := r.Named(values); !ok || named != k {
			t.Errorf("%s: the key of %q is another", text, values)
		}
	}
	f("consumer", "", "", "", "", "consumer=-")
	f("consumer", "acme", "", "", "", "consumer=acme")
	f("tenant", "acme", "", "", "", "tenant=-")
	f("tenant", "acme", "t", "", "", "tenant=t")
	f("claim:sub", "acme", "", "", "", "claim=-")
	f("claim:sub", "", "", "u-1", "", "claim=u-1")
	f("claim:plan", "", "", "u-1", "", "claim=-")
	f("upstream", "", "", "", "", "upstream=-")
	f("upstream consumer", "b", "", "", "api", "upstream=api consumer=b")
	one, _ := recipe("consumer").Named([]string{"x"})
	two, _ := recipe("tenant").Named([]string{"x"})
	if one == two {
		t.Error("a consumer and a tenant of one name have one key")
	}
}
