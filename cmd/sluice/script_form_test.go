package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestScriptForm holds the scripts to what makes them documentation: each opens with a paragraph, and each of its files
// is used and can be read.
func TestScriptForm(t *testing.T) {
	names, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("cannot find scripts: %v", err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Errorf("cannot read %q: %v", name, err)
			continue
		}
		if err := checkForm(archive); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func checkForm(archive *txtar.Archive) error {
	script := string(archive.Comment)
	paragraph, _, ok := strings.Cut(script, "\n\n")
	for line := range strings.Lines(paragraph) {
		ok = ok && strings.HasPrefix(line, "# ")
	}
	if !ok || len(paragraph) < 40 {
		return fmt.Errorf("it does not open with a paragraph that says what it shows")
	}
	for _, f := range archive.Files {
		base := filepath.Base(f.Name)
		implied := base == "sluice.yaml" || filepath.Dir(f.Name) == "conf.d"
		if !implied && !strings.Contains(script, base) {
			return fmt.Errorf("file %q is not used", f.Name)
		}
		switch filepath.Ext(f.Name) {
		case ".http":
			if _, err := compileHTTP(string(f.Data)); err != nil {
				return fmt.Errorf("file %q: %w", f.Name, err)
			}
		case ".tbl":
			for text := range strings.SplitSeq("\n"+string(f.Data), "\n=== ") {
				_, request, _ := strings.Cut(text, "\n")
				if _, err := compileHTTP(request); err != nil {
					return fmt.Errorf("file %q: %w", f.Name, err)
				}
			}
		}
	}
	return nil
}

// TestCompileHTTP checks the notation of .http files, upon which every script relies.
func TestCompileHTTP(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		segments, err := compileHTTP(text)
		if err != nil {
			t.Errorf("compileHTTP(%q): %v", text, err)
			return
		}
		var got []string
		for _, s := range segments {
			got = append(got, string(s.data))
		}
		if joined := strings.Join(got, "|"); joined != want {
			t.Errorf("compileHTTP(%q) = %q, want %q", text, joined, want)
		}
	}
	f("GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	f("a\n\nbody\n", "a\r\n\r\nbody")
	f("a\n\nbody", "a\r\n\r\nbody")
	f("a\\\nb\n\n", "ab\r\n\r\n")
	f(`\x41\r\n\t\0\\`+"\n", "A\r\n\t\x00\\")
	f("a\n\\pause\nb\n\\pause 5ms\nc\n", "a\r\n|b\r\n|c")
	f("\\repeat 3 ab\\n\n\n", "ab\nab\nab\n\r\n")
	f("a\\\\\nb\n", "a\\\r\nb")
	for _, bad := range []string{`\q`, `\x4`, `\xzz`, `\repeat x y`, `\pause soon`} {
		if _, err := compileHTTP(bad + "\nend\n"); err == nil {
			t.Errorf("compileHTTP(%q) succeeds", bad)
		}
	}
}
