package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRefusedReloadMovesNothing: what is refused for its last part has not put its first in force.
func TestRefusedReloadMovesNothing(t *testing.T) {
	const rest = `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", respond: { status: 204 } }]
`
	g := run(t, rest+`access_log: { to: "FOLDER/one.log" }`)
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(g.config, []byte(strings.ReplaceAll(rest+text, "FOLDER", g.folder)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("access_log: { to: \"FOLDER/missing/two.log\" }\nadmin: { bind: \"unix:FOLDER/other.sock\" }\n")
	if err := g.admin.Reload(true); err == nil || !strings.Contains(err.Error(), "missing/two.log") {
		t.Fatalf("the reload: %v", err)
	}
	if _, err := g.admin.Status(); err != nil {
		t.Errorf("a reload that was refused has moved the admin API: %v", err)
	}
	if _, err := os.Stat(filepath.Join(g.folder, "other.sock")); err == nil {
		t.Error("a reload that was refused has left the admin API's new socket")
	}
	put("access_log: { to: \"FOLDER/two.log\" }\ntuning: { cpus: \"1000\" }\nadmin: { bind: \"unix:FOLDER/admin.sock\" }\n")
	if err := g.admin.Reload(true); err == nil {
		t.Fatal("processors that there are not are taken")
	}
	forwardGet(t, g.addr, "/after", nil)
	g.eventually("the access log is where it was", func() bool {
		text, _ := os.ReadFile(filepath.Join(g.folder, "one.log"))
		return strings.Contains(string(text), "/after")
	})
}

// TestReloadLeavesAStuckLog: an access log that takes nothing can be left by a reload, and what it counted is never counted twice.
func TestReloadLeavesAStuckLog(t *testing.T) {
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // reads nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	if _, err := unix.FcntlInt(reader.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	const text = `
loops: 1
listeners: { http: { bind: "127.0.0.1:0" } }
access_log: { to: "TO" }
routes: [{ match: "/*", respond: { status: STATUS } }]
`
	g := run(t, strings.NewReplacer("TO", pipe, "STATUS", "204").Replace(text))
	for i := range 200 {
		forwardGet(t, g.addr, fmt.Sprintf("/%d-%s", i, strings.Repeat("x", 1000)), nil)
	}
	g.write(strings.NewReplacer("TO", filepath.Join(folder, "file"), "STATUS", "202").Replace(text))
	if err := g.admin.Reload(true); err != nil {
		t.Errorf("the reload that leaves the log is refused: %v", err)
	}
	if res, _ := forwardGet(t, g.addr, "/", nil); res.StatusCode != 202 {
		t.Errorf("status %d: the new configuration is not in force", res.StatusCode)
	}
}
