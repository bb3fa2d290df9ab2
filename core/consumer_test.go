package core

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

func manyConsumers(n int) []ConsumerSpec {
	all := make([]ConsumerSpec, n)
	for i := range all {
		all[i] = ConsumerSpec{Consumer: Consumer{Name: fmt.Sprint("c", i)}, Keys: []APIKey{{Sum: sha256.Sum256(fmt.Appendf(nil, "key-%d", i))}},
			Passwords: map[string]Password{fmt.Sprint("u", i): {Bcrypt: "x"}}, Subjects: []TokenSubject{{"issuer", fmt.Sprint("s", i)}},
			Fingerprints: []string{fmt.Sprint("f", i)}}
	}
	return all
}

func TestDirectory(t *testing.T) {
	all := manyConsumers(3)
	all[2].Subjects = []TokenSubject{{"", "s1"}, {"", "any"}}
	d, err := NewDirectory(all)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, got *Consumer, want string) {
		t.Helper()
		if name := map[bool]func() string{true: func() string { return "" }, false: func() string { return got.Name }}[got == nil](); name != want {
			t.Errorf("%s is %q's, want %q", what, name, want)
		}
	}
	f("a key", d.ByKey([]byte("key-1")), "c1")
	f("a key that is longer", d.ByKey([]byte("key-11")), "")
	f("no key", d.ByKey(nil), "")
	f("a hash instead of the key", d.ByKey(all[1].Keys[0].Sum[:]), "")
	f("a subject", d.BySubject("issuer", "s0"), "c0")
	f("a subject of the issuer before that of any", d.BySubject("issuer", "s1"), "c1")
	f("a subject of another issuer", d.BySubject("other", "s0"), "")
	f("a subject of any issuer", d.BySubject("other", "any"), "c2")
	f("a certificate", d.ByCertificate(&Identity{Fingerprint: "f2"}), "c2")
	f("a name", d.Named("c0"), "c0")
	if l := d.Login([]byte("u1")); l == nil || l.Consumer.Name != "c1" || d.Login([]byte("u3")) != nil {
		t.Errorf("u1 is %+v", l)
	}
	for what, share := range map[string]func(a, b *ConsumerSpec){
		"name":        func(a, b *ConsumerSpec) { a.Name = b.Name },
		"key":         func(a, b *ConsumerSpec) { a.Keys = b.Keys },
		"user":        func(a, b *ConsumerSpec) { a.Passwords = b.Passwords },
		"subject":     func(a, b *ConsumerSpec) { a.Subjects = b.Subjects },
		"certificate": func(a, b *ConsumerSpec) { a.Fingerprints = b.Fingerprints },
	} {
		all := manyConsumers(2)
		share(&all[0], &all[1])
		if _, err := NewDirectory(all); err == nil {
			t.Errorf("two consumers have a %s in common", what)
		}
	}
}

func TestDirectoryAllocs(t *testing.T) {
	d, err := NewDirectory(manyConsumers(1000))
	if err != nil {
		t.Fatal(err)
	}
	key, user, id := []byte("key-77"), []byte("u77"), &Identity{Fingerprint: "f77"}
	ids, withID := withKeyIDs(t, 100), []byte("k000077_secret")
	if n := testing.AllocsPerRun(100, func() {
		if ids.ByKey(withID) == nil {
			t.Fatal("not found")
		}
		if d.ByKey(key) == nil || d.Login(user) == nil || d.BySubject("issuer", "s77") == nil || d.ByCertificate(id) == nil {
			t.Fatal("not found")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestKeyTable fills tables of many sizes to the last key: every key is found, also those that stand behind the end's, and no other is.
func TestKeyTable(t *testing.T) {
	for n := range 300 {
		table := newKeyTable(n)
		sums := make([][sha256.Size]byte, n)
		owners := make([]Consumer, n)
		for i := range sums {
			sums[i] = sha256.Sum256(fmt.Appendf(nil, "%d of %d", i, n))
			if i%3 == 0 {
				copy(sums[i][:8], "\xff\xff\xff\xff\xff\xff\xff\xff") // many want the last place
			}
			table.put(&APIKey{Sum: sums[i]}, &owners[i])
			table.put(&APIKey{Sum: sums[i]}, &Consumer{})
		}
		if len(table.entries) != n {
			t.Fatalf("%d keys, want %d", len(table.entries), n)
		}
		for i := range sums {
			if e := table.find(&sums[i]); e == nil || e.owner != &owners[i] {
				t.Fatalf("key %d of %d is another's", i, n)
			}
			for at := range sums[i] {
				other := sums[i]
				if other[at] ^= 1; table.find(&other) != nil {
					t.Fatalf("a hash that differs from that of key %d of %d in byte %d is taken for it", i, n, at)
				}
			}
		}
	}
}

// TestKeyIDs: by a key that has an id its consumer is known with it, and only if it begins with the id and a separator.
func TestKeyIDs(t *testing.T) {
	long := strings.Repeat("l", 40)
	one := ConsumerSpec{Consumer: Consumer{Name: "acme", Tier: "gold"}}
	for key, id := range map[string]string{"a_1-x": "a_1", "a_2.y": "a_2", "plain": "", "other_z": "a_3", "a_4": "a_4", "a_5_": "a_5", "a_6+x": "a_6",
		long + "a_x": long + "a", long + "b_x": long + "c"} {
		one.Keys = append(one.Keys, APIKey{sha256.Sum256([]byte(key)), id})
	}
	d, err := NewDirectory([]ConsumerSpec{one})
	if err != nil {
		t.Fatal(err)
	}
	for key, id := range map[string]string{"a_1-x": "a_1", "a_2.y": "a_2", "plain": "", long + "a_x": long + "a"} {
		if c := d.ByKey([]byte(key)); c == nil || c.KeyID != id || c.Name != "acme" || c.Tier != "gold" {
			t.Errorf("%q is %+v's, want id %q", key, c, id)
		}
	}
	for _, key := range []string{"other_z", "a_4", "a_5_", "a_6+x", "a_1", "a_1_x", long + "b_x", ""} {
		if c := d.ByKey([]byte(key)); c != nil {
			t.Errorf("%q is %+v's", key, c)
		}
	}
	if c := d.Named("acme"); c.KeyID != "" {
		t.Errorf("acme, by his name, has key %q", c.KeyID)
	}
	one.Keys = []APIKey{{ID: strings.Repeat("x", 256)}}
	if _, err := NewDirectory([]ConsumerSpec{one}); err == nil {
		t.Error("an id of 256 bytes is taken")
	}
}

// withKeyIDs gives a directory of n keys that have ids.
func withKeyIDs(tb testing.TB, n int) *Directory {
	all := make([]ConsumerSpec, n)
	for i := range all {
		id := fmt.Sprintf("k%06d", i)
		all[i] = ConsumerSpec{Consumer: Consumer{Name: fmt.Sprint("c", i)}, Keys: []APIKey{{sha256.Sum256([]byte(id + "_secret")), id}}}
	}
	d, err := NewDirectory(all)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// BenchmarkDirectoryByKey looks keys up of which a part is asked for again and again, and all of them in turn, when the table is in no
// cache. What SHA-256 takes is shown beside.
func BenchmarkDirectoryByKey(b *testing.B) {
	const all, width = 100_000, 16
	d, err := NewDirectory(manyConsumers(all))
	if err != nil {
		b.Fatal(err)
	}
	var keys []byte // one behind another, as if each had just been received
	for i := range all {
		keys = fmt.Appendf(keys, "%-*s", width, fmt.Sprint("key-", i*7919%all))
	}
	key := func(i int) []byte { return bytes.TrimRight(keys[i*width:(i+1)*width], " ") }
	for _, of := range []int{1000, all} {
		b.Run(fmt.Sprint(of), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if d.ByKey(key(i%of)) == nil {
					b.Fatal("not found")
				}
			}
		})
	}
	d = withKeyIDs(b, all)
	for i := range all { // as keys
		copy(keys[i*width:], fmt.Sprintf("k%06d_secret", i*7919%all))
	}
	b.Run(fmt.Sprint(all, " with ids"), func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if d.ByKey(key(i%all)) == nil {
				b.Fatal("not found")
			}
		}
	})
	b.Run("sha256", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if sha256.Sum256(key(i%1000)) == [sha256.Size]byte{} {
				b.Fatal("no hash")
			}
		}
	})
}
