package tls

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reload fails unless Reload tells these changes and one problem with this text, or none.
func reload(t *testing.T, s interface{ Reload() ([]string, []error) }, problem string, changes ...string) {
	t.Helper()
	changed, problems := s.Reload()
	if !slices.Equal(changed, changes) {
		t.Errorf("changed %q, want %q", changed, changes)
	}
	if problem == "" && len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	} else if problem != "" {
		if len(problems) != 1 {
			t.Fatalf("problems: %v", problems)
		}
		wants(t, problems[0], problem)
	}
}

func TestRenewal(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	names := []string{"a.example.com"}
	first, second := ca.issue(t, k.p256, nil, names...), ca.issue(t, k.p256b, nil, "a.example.com", "new.example.com")
	third := ca.issue(t, k.p384, nil, names...)
	expired := ca.issue(t, k.p256b, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, names...)
	p := first.files(t)
	s := newStore(t, Options{Pairs: []Pair{p}, RefuseUnknown: true})
	server := serverConfig(t, ServerOptions{Store: s})
	client := &cryptotls.Config{RootCAs: ca.pool(), ServerName: "a.example.com"}
	served := func(want *issued) {
		t.Helper()
		if got := good(t, server, client).client.PeerCertificates[0]; !got.Equal(want.cert) {
			t.Errorf("got the certificate with serial number %x", got.SerialNumber)
		}
	}
	served(first)
	reload(t, s, "")

	write(t, p.Cert, second.text)
	reload(t, s, "does not match")
	reload(t, s, "does not match") // still
	served(first)
	wants(t, errors.New(s.Certificates()[0].Problem), "does not match")
	if s.Lookup("new.example.com") != nil {
		t.Error("a name of the certificate that was not taken is served")
	}

	write(t, p.Key, second.keyText)
	reload(t, s, "", p.Cert)
	served(second)
	if s.Lookup("new.example.com") == nil || s.Certificates()[0].Problem != "" {
		t.Error("the renewal was not taken whole")
	}

	// Renamed over, the key first.
	for _, f := range []struct{ name, text, problem string }{{p.Key, third.keyText, "does not match"}, {p.Cert, third.text, ""}} {
		write(t, f.name+".new", f.text)
		if err := os.Rename(f.name+".new", f.name); err != nil {
			t.Fatal(err)
		}
		if f.problem != "" {
			reload(t, s, f.problem)
		}
	}
	reload(t, s, "", p.Cert)
	served(third)

	for _, broken := range []struct{ text, problem string }{{"", "holds no certificate"}, {third.text[:300], "PEM blocks begin"}} {
		write(t, p.Cert, broken.text)
		reload(t, s, broken.problem)
		served(third)
	}
	if err := os.Remove(p.Cert); err != nil {
		t.Fatal(err)
	}
	reload(t, s, "no such file")
	served(third)
	write(t, p.Cert, third.text)
	reload(t, s, "")
	write(t, p.Cert, expired.text)
	write(t, p.Key, expired.keyText)
	reload(t, s, "the certificate expired on")
	served(third)
	write(t, p.Cert, first.text)
	write(t, p.Key, first.keyText)
	reload(t, s, "", p.Cert)
	served(first)
	if s.Lookup("new.example.com") != nil {
		t.Error("a name that no certificate bears any more is served")
	}
}

func TestSymlinkSwap(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	a, b := ca.issue(t, k.p256, nil, "a.example.com"), ca.issue(t, k.p256b, nil, "a.example.com")
	dir := t.TempDir()
	for name, i := range map[string]*issued{"..one": a, "..two": b} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "tls.crt"), i.text)
		write(t, filepath.Join(dir, name, "tls.key"), i.keyText)
	}
	link := func(to, name string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, name+".new"), os.Rename(name+".new", name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..one", dir+"/..data")
	link("..data/tls.crt", dir+"/tls.crt")
	link("..data/tls.key", dir+"/tls.key")
	s := newStore(t, Options{Pairs: []Pair{{Cert: dir + "/tls.crt", Key: dir + "/tls.key"}}})
	for _, swap := range []struct {
		to   string
		want *issued
	}{{"..two", b}, {"..one", a}} {
		link(swap.to, dir+"/..data")
		reload(t, s, "", dir+"/tls.crt")
		if !same(s.Lookup(""), swap.want) {
			t.Errorf("%s is not served", swap.to)
		}
	}
}

func TestPatternReload(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	bundle := func(name string) string {
		i := ca.issue(t, k.p256, nil, name)
		return i.text + i.keyText
	}
	dir := t.TempDir()
	write(t, dir+"/b.pem", bundle("b.example.com"))
	s := newStore(t, Options{Pairs: []Pair{{Glob: dir + "/*.pem"}}, Default: "b.example.com"})
	write(t, dir+"/a.pem", bundle("a.example.com"))
	reload(t, s, "", dir+"/a.pem")
	write(t, dir+"/c.pem", "broken")
	reload(t, s, "holds no certificate")
	if s.Lookup("a.example.com") == s.Lookup("b.example.com") || len(s.Certificates()) != 3 {
		t.Error("the new file is not used")
	}
	write(t, dir+"/c.pem", bundle("c.example.com"))
	reload(t, s, "", dir+"/c.pem")
	remove := func(names ...string) {
		t.Helper()
		for _, n := range names {
			if err := os.Remove(dir + "/" + n + ".pem"); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove("a")
	reload(t, s, "", dir+"/a.pem (removed)")
	def := s.Lookup("unknown.example.net")
	if s.Lookup("a.example.com") != def {
		t.Error("a certificate that is gone is used")
	}
	remove("b")
	reload(t, s, `"b.example.com" as default`, dir+"/b.pem (removed)")
	reload(t, s, `"b.example.com" as default`)
	if s.Lookup("unknown.example.net") != def {
		t.Error("the default has gone with its file")
	}
	remove("c")
	changed, problems := s.Reload()
	// The pattern, the file that stays in use, the default.
	if len(changed) > 0 || len(problems) != 3 || !strings.Contains(problems[0].Error(), "no file matches") || s.Lookup("c.example.com") == def {
		t.Errorf("an empty folder: changed %v, problems %v", changed, problems)
	}
}

func TestUnchangedFilesAreNotRead(t *testing.T) {
	name := write(t, t.TempDir()+"/f", "text")
	r, err := readFile(name, 10)
	if err != nil {
		t.Fatal(err)
	}
	if r.fresh(name) {
		t.Error("a file that was just written may change within its stamp")
	}
	r.settled = r.stamp.settled(time.Now().Add(settleTime + time.Second))
	if !r.fresh(name) {
		t.Error("a file that has rested is read again")
	}
	if err := os.Chtimes(name, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if r.fresh(name) {
		t.Error("another modification time is not seen")
	}
}

func TestWatch(t *testing.T) {
	ca, k := newAuthority(t, "ca"), ring()
	a, b := ca.issue(t, k.p256, nil, "a.example.com"), ca.issue(t, k.p256b, nil, "a.example.com")
	p := a.files(t)
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{Pairs: []Pair{p}})
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex // Sleep orders nothing for the race detector
		var got []string
		var group sync.WaitGroup
		group.Go(func() {
			s.Watch(ctx, time.Millisecond, func(changed []string, problems []error) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, strings.Join(changed, ",")+"|"+strings.Repeat("problem", len(problems)))
			})
		})
		turn := func(want string) {
			t.Helper()
			mu.Lock()
			got = nil
			mu.Unlock()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, strings.Fields(want)) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		turn("")
		write(t, p.Cert, b.text)
		turn("|problem") // once in ten looks
		write(t, p.Cert, a.text)
		turn("|")
		write(t, p.Cert, b.text)
		write(t, p.Key, b.keyText)
		turn(p.Cert + "|")
		cancel()
		group.Wait()
	})
}
