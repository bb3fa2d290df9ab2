package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
)

// TestSecretFiles: without a word about it, a file that a secret was read from is followed, whether it is written or replaced, or away for a
// while.
func TestSecretFiles(t *testing.T) {
	folder := t.TempDir()
	file, link := filepath.Join(folder, "one"), filepath.Join(folder, "link")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("s1")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	const text = `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", respond: { headers: { X-File: "file:FILE" } } }]
`
	on := strings.ReplaceAll(text, "FILE", link)
	g := run(t, on)
	says := func(g *running, want string) bool {
		res, _ := forwardGet(t, g.addr, "/", nil)
		return res.Header.Get("X-File") == want
	}
	if !says(g, "s1") {
		t.Fatal("secrets are not what they are at the start")
	}
	put("s2")
	eventually(t, "a file that is written is read", func() bool { return says(g, "s2") })
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is said that the file is away", func() bool { return strings.Contains(g.log.String(), "secrets cannot be read") })
	if !says(g, "s2") {
		t.Error("what was known is not in force any more")
	}
	if err := os.WriteFile(filepath.Join(folder, "two"), []byte("s3"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("two", link); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file behind another link is read", func() bool { return says(g, "s3") })
}

// TestSecretFilesAgain: a secret that could not be put in force when it was read, here because a certificate was being written, is put in
// force afterwards, although its file is the same since.
func TestSecretFilesAgain(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test")
	put := func(name string, text []byte) {
		t.Helper()
		a.must(os.WriteFile(filepath.Join(folder, name), text, 0o600))
	}
	put("a.pem", append(cert, key...))
	put("one", []byte("s1"))
	g := run(t, strings.ReplaceAll(`
loops: 1
secrets: { refresh: 1s }
listeners:
  http: { bind: "127.0.0.1:0" }
  https: { bind: "127.0.0.1:0", tls: { certificates: ["DIR/a.pem"] } }
routes: [{ match: "/*", respond: { headers: { X-File: "file:DIR/one" } } }]
`, "DIR", folder))
	put("a.pem", []byte("not whole yet"))
	put("one", []byte("s2"))
	g.eventually("the configuration is refused", func() bool { return strings.Contains(g.log.String(), "configuration refused") })
	put("a.pem", append(cert, key...))
	g.eventually("the secret is in force", func() bool {
		res, _ := forwardGet(t, g.addr, "/", nil)
		return res.Header.Get("X-File") == "s2"
	})
}

// TestSecretFilesAtRest: a file is read once nobody writes it any more, and with refresh: off never.
func TestSecretFilesAtRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	as := func(size int64) secretFiles {
		s := stampOf(path, time.Now().Add(stampRest))
		s.size = size
		return secretFiles{path: s}
	}
	var v secrets
	off := &loaded{cfg: &config.Config{}, files: as(2)}
	v.inForce.Store(off)
	watch := &secretsWatch{secrets: &v}
	if wait := watch.turn(t.Context()); wait != 0 || v.looks.Load() != 0 {
		t.Errorf("with refresh: off there is a look in %s, after %d", wait, v.looks.Load())
	}
	time.Sleep(stampRest + 20*time.Millisecond)
	f := func(what string, want bool, again time.Duration) {
		t.Helper()
		if changed, wait := watch.filesChanged(secretFilesEvery); changed != want || wait != again {
			t.Errorf("%s: %v, again in %s", what, changed, wait)
		}
	}
	f("another size", false, stampRest)
	f("that stays", true, secretFilesEvery)
	watch.moved = as(3)
	f("and changes again", false, stampRest)
	f("that stays", true, secretFilesEvery)
	watch.files = as(1)
	f("as it was read", false, secretFilesEvery)
	watch.files = nil
	f("no files", false, 0)
}

// TestStamps: whatever is done to a file is noticed, and at once where its stamp was young.
func TestStamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(path, "a")
	later := time.Now().Add(stampRest)
	at := func(now time.Time) secretFiles { return secretFiles{path: stampOf(path, now)} }
	if young := at(time.Now()); !young.changed(at(later)) {
		t.Error("a write within the clock's tick would not be noticed")
	}
	old := at(later)
	if old.changed(at(later)) || old.changed(old.now()) && !old.now()[path].young {
		t.Error("a file that nobody has touched has changed")
	}
	written, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, do func() error) {
		t.Helper()
		was := at(later)
		time.Sleep(20 * time.Millisecond) // a tick of the file system's clock
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if !was.changed(at(later)) {
			t.Errorf("%s is not noticed", what)
		}
	}
	f("a write of as many bytes whose time is set back", func() error {
		put(path, "b")
		return os.Chtimes(path, written.ModTime(), written.ModTime())
	})
	f("another file of that name", func() error {
		put(path+".next", "c")
		return os.Rename(path+".next", path)
	})
	f("that it is gone", func() error { return os.Remove(path) })
	f("that it is back", func() error { put(path, "c"); return nil })
}
