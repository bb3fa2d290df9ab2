package tls

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// refused gives the mistakes of a store, each with its pair, and fails unless there is one.
func refused(t *testing.T, o Options, want string, pair int) error {
	t.Helper()
	_, _, err := NewStore(o)
	wants(t, err, want)
	var all PairErrors
	if !errors.As(err, &all) || len(all) != 1 || all[0].Pair != pair {
		t.Errorf("%v is not of pair %d", err, pair)
	}
	return err
}

// warned gives the kinds of the warnings of a store that must be taken.
func warned(t *testing.T, o Options, want ...Kind) *Store {
	t.Helper()
	s, warnings, err := NewStore(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != len(want) {
		t.Fatalf("warnings: %v, want %v", warnings, want)
	}
	for i, w := range warnings {
		if w.Kind != want[i] {
			t.Errorf("warning %v, want %v", w, want[i])
		}
	}
	return s
}

// What has expired is refused, but where a process begins, and where it is in use already.
func TestExpired(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	over := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }
	good, old := ca.issue(t, k.p256, nil, "a.example.com").inline(), ca.issue(t, k.p256, over, "b.example.com").inline()
	o := Options{Pairs: []Pair{good, old}}
	refused(t, o, `cannot use "inline certificate": the certificate expired on 20`, 1)
	o.Starting = true
	before := warned(t, o, Expired)
	o.Starting, o.Before = false, before
	again := warned(t, o, Expired)
	o.Before = again // what replaced it counts too
	warned(t, o, Expired)
	o.Pairs[0] = ca.issue(t, k.p256b, over, "a.example.com").inline()
	refused(t, o, "expired", 0)

	// A certificate between is as good as the leaf, an anchor is not.
	ca.cert.NotAfter = time.Now().Add(-time.Hour)
	l := &loaded{chain: []*x509.Certificate{ca.issue(t, k.p256, nil, "a.example.com").cert, ca.cert}}
	if got := l.over(time.Now()); got != "" {
		t.Errorf("an anchor: %s", got)
	}
	between := *ca.cert
	between.RawIssuer = []byte("another")
	l.chain[1] = &between
	if got := l.over(time.Now()); !strings.HasPrefix(got, "certificate 2 of the chain expired on") {
		t.Errorf("an intermediate: %q", got)
	}
}

// A name in two certificates with the same kind of key is refused, but where a pattern found it as the process begins, and where both are
// in use.
func TestOverlap(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	first := ca.issue(t, k.p256, nil, "a.example.com", "b.example.com", "c.example.com", "*.w.example.com")
	f := func(i *issued, want string) {
		t.Helper()
		o := Options{Pairs: []Pair{first.inline(), i.inline()}}
		if want == "" {
			warned(t, o)
			o.Client = true
			warned(t, o)
			return
		}
		for _, o.Starting = range []bool{false, true} {
			var overlap *OverlapError
			if !errors.As(refused(t, o, want, 1).(PairErrors)[0], &overlap) || overlap.First != 0 || overlap.Second != 1 {
				t.Errorf("%+v", overlap)
			}
		}
		o.Client = true // where names do not matter
		warned(t, o)
	}
	f(ca.issue(t, k.p256b, nil, "x.example.com", "b.example.com", "c.example.com"), `the name "b.example.com" (and 1 more) stands with the same kind of key in`)
	f(ca.issue(t, k.p256b, nil, "*.W.example.com"), `the name "*.w.example.com" stands`)
	f(ca.issue(t, k.p256b, nil, "x.w.example.com", "d.example.com"), "") // more exact
	f(ca.issue(t, k.p384, nil, "a.example.com"), "")                     // of another kind
	f(first, "")                                                         // the same twice

	dir := t.TempDir()
	second := ca.issue(t, k.p256b, nil, "a.example.com")
	write(t, dir+"/1.pem", first.text+first.keyText)
	write(t, dir+"/2.pem", second.text+second.keyText)
	o := Options{Pairs: []Pair{{Glob: dir + "/*.pem"}}}
	refused(t, o, `2.pem": the name "a.example.com" stands`, 0)
	o.Starting = true
	o.Before = warned(t, o, Overlap)
	if !same(o.Before.Lookup("a.example.com"), first) {
		t.Error("not the first is used")
	}
	o.Starting = false
	warned(t, o, Overlap)
	third := ca.issue(t, k.p256, nil, "a.example.com")
	write(t, dir+"/3.pem", third.text+third.keyText)
	_, _, err := NewStore(o)
	wants(t, err, `3.pem": the name "a.example.com" stands`)
}

// A renewal that brings a name of another certificate waits until it is free. Two may exchange their names.
func TestOverlappingRenewal(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	dir := t.TempDir()
	a, b := dir+"/a.pem", dir+"/b.pem"
	put := func(file string, names ...string) {
		t.Helper()
		i := ca.issue(t, k.p256, nil, names...)
		write(t, file, i.text+i.keyText)
	}
	put(a, "a.example.com")
	put(b, "b.example.com")
	s := newStore(t, Options{Pairs: []Pair{{Cert: a}, {Cert: b}}, RefuseUnknown: true})
	was := s.Lookup("a.example.com")
	put(a, "a.example.com", "b.example.com")
	for range 2 {
		reload(t, s, `the name "b.example.com" stands with the same kind of key in "`+b+`"`)
		if s.Lookup("a.example.com") != was || s.Lookup("b.example.com") == was || s.Certificates()[0].Problem == "" {
			t.Fatal("the pair before has not stayed")
		}
	}
	put(b, "c.example.com")
	reload(t, s, "", a, b)
	if s.Lookup("b.example.com") == nil || s.Lookup("b.example.com") != s.Lookup("a.example.com") || s.Certificates()[0].Problem != "" {
		t.Error("the renewal is not used once its names are free")
	}
	put(a, "c.example.com")
	put(b, "a.example.com", "b.example.com")
	reload(t, s, "", a, b)

	put(a, "b.example.com")
	reload(t, s, "the name")
	put(a, "d.example.com") // mended
	reload(t, s, "", a)
	put(a, "x.example.com", "e.example.com")
	put(b, "x.example.com", "e.example.com")
	reload(t, s, "the name", a)
}

// A file that comes into a folder takes over when the one that it replaces goes.
func TestOverlappingFile(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	dir := t.TempDir()
	put := func(name string) {
		t.Helper()
		i := ca.issue(t, k.p256, nil, "a.example.com")
		write(t, dir+"/"+name, i.text+i.keyText)
	}
	put("2025.pem")
	s := newStore(t, Options{Pairs: []Pair{{Glob: dir + "/*.pem"}}})
	was := s.Lookup("a.example.com")
	put("2024.pem") // before it by name
	put("2026.pem")
	_, problems := s.Reload()
	if len(problems) != 2 || s.Lookup("a.example.com") != was {
		t.Fatalf("problems: %v", problems)
	}
	for _, name := range []string{"2024.pem", "2025.pem"} {
		if err := os.Remove(dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	reload(t, s, "", dir+"/2026.pem", dir+"/2025.pem (removed)")
	if s.Lookup("a.example.com") == was {
		t.Error("the certificate that is gone is used")
	}

	// One that the process began with is renewed as ever.
	put("2025.pem")
	o := Options{Pairs: []Pair{{Glob: dir + "/*.pem"}}, Starting: true}
	s = warned(t, o, Overlap)
	put("2025.pem")
	reload(t, s, "", dir+"/2025.pem")
}
