package jwt

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// longToken is as long as those of common issuers.
func longToken(i int) string { return fmt.Sprintf("%0800d", i) }

func TestCache(t *testing.T) {
	var c cache
	k1, k2 := &KeySet{}, &KeySet{keys: []key{{}}}
	d1, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	d2, _ := core.NewDirectory([]core.ConsumerSpec{{Consumer: core.Consumer{Name: "x"}}})
	f := func(what string, k *KeySet, d *core.Directory, token string, now int64, want bool) {
		t.Helper()
		if got := c.find([]byte(token), k, d, now) != nil; got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	fill := func() {
		f("nothing yet", k1, d1, "a", 0, false)
		c.put(&grant{Grant: &core.Grant{}, token: "a", until: 10})
	}
	fill()
	f("there", k1, d1, "a", 9, true)
	f("over", k1, d1, "a", 10, false)
	f("another", k1, d1, "aa", 0, false)
	f("a part", k1, d1, "", 0, false)
	f("other keys", k2, d1, "a", 0, false)
	f("the keys as before, but nothing is left", k1, d1, "a", 0, false)
	fill()
	f("another directory", k1, d2, "a", 0, false)
}

// TestCacheUntil: a token is kept as long as it may be, also one that expires later than nanoseconds can say.
func TestCacheUntil(t *testing.T) {
	d, _ := core.NewDirectory(nil)
	p := New(Spec{CacheFor: time.Minute, Leeway: 5 * time.Second}, Fixed{&KeySet{}}, core.NewConsumers(d), 1)
	now := time.Unix(1_900_000_000, 0)
	for exp, want := range map[string]time.Duration{"1900000001": 6 * time.Second, "1900000060": time.Minute, "9999999999": time.Minute, "253402300799": time.Minute, "1099511627776": time.Minute} {
		g, err := p.judge(&token{claims: core.Claims{"exp": json.Number(exp)}}, d, now)
		if err != nil {
			t.Fatal(exp, err)
		}
		if got := time.Duration(g.until - now.UnixNano()); got != want {
			t.Errorf("exp %s: kept for %v, want %v", exp, got, want)
		}
	}
}

func TestCacheAllocs(t *testing.T) {
	var c cache
	d, _ := core.NewDirectory(nil)
	keys := &KeySet{}
	c.find(nil, keys, d, 0)
	token := []byte(strings.Repeat("x", 800))
	c.put(&grant{Grant: &core.Grant{}, token: string(token), until: 1})
	if n := testing.AllocsPerRun(100, func() {
		if c.find(token, keys, d, 0) == nil {
			t.Fatal("not found")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCached is a check of a token that was verified before, among 2,000 others.
func BenchmarkCached(b *testing.B) {
	var c cache
	d, _ := core.NewDirectory(nil)
	keys := &KeySet{}
	c.find(nil, keys, d, 0)
	var tokens [2000][]byte
	for i := range tokens {
		tokens[i] = []byte(longToken(i))
		c.put(&grant{Grant: &core.Grant{}, token: string(tokens[i]), until: 1})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if c.find(tokens[i%len(tokens)], keys, d, 0) == nil {
			b.Fatal("not found")
		}
	}
}
