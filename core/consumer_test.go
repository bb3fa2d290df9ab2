package core

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
)

func manyConsumers(n int) []ConsumerSpec {
	all := make([]ConsumerSpec, n)
	for i := range all {
		all[i] = ConsumerSpec{Consumer: Consumer{Name: fmt.Sprint("c", i)}, Keys: [][32]byte{sha256.Sum256(fmt.Appendf(nil, "key-%d", i))},
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
	f("a hash instead of the key", d.ByKey(all[1].Keys[0][:]), "")
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
	if n := testing.AllocsPerRun(100, func() {
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
			table.put(&sums[i], &owners[i])
			table.put(&sums[i], &Consumer{})
		}
		if len(table.entries) != n {
			t.Fatalf("%d keys, want %d", len(table.entries), n)
		}
		for i := range sums {
			if table.find(&sums[i]) != &owners[i] {
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
	b.Run("sha256", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if sha256.Sum256(key(i%1000)) == [sha256.Size]byte{} {
				b.Fatal("no hash")
			}
		}
	})
}
