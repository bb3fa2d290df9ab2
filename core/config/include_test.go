package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHiddenFilesAreNotIncluded: what an editor leaves beside a file of a pattern, here a copy and a lock that leads nowhere, is neither
// read nor a reason to refuse.
func TestHiddenFilesAreNotIncluded(t *testing.T) {
	folder := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("sluice.yaml", "include: '*.part.yaml'\nlisteners: { http: { bind: ':80' } }\n")
	put("a.part.yaml", "routes: [{ match: /a, respond: { status: 204 } }]\n")
	put(".a.part.yaml", "routes: [{ match: /old, respond: { status: 204 } }]\n")
	if err := os.Symlink("nobody@nowhere", filepath.Join(folder, ".#a.part.yaml")); err != nil {
		t.Fatal(err)
	}
	cfg, problems := Load(filepath.Join(folder, "sluice.yaml"))
	if cfg == nil {
		t.Fatalf("refused:\n%s", problems)
	}
	if len(cfg.Routes) != 1 {
		t.Errorf("%d routes", len(cfg.Routes))
	}
	put("sluice.yaml", "include: '.a*.yaml'\nlisteners: { http: { bind: ':80' } }\n") // named
	if cfg, problems = Load(filepath.Join(folder, "sluice.yaml")); cfg == nil || len(cfg.Routes) != 1 {
		t.Errorf("those that are meant: %v", problems)
	}
}
