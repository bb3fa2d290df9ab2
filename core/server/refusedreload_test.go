package server

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// readdress puts text in force as the configuration, with the admin API at path.
func (g *running) readdress(text, path string) {
	g.t.Helper()
	if err := os.WriteFile(g.config, []byte(strings.ReplaceAll(text, "FOLDER", g.folder)+"\nadmin: { bind: \"unix:"+path+"\" }\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		g.t.Fatal(err)
	}
}

// A configuration that is refused for its access log leaves the admin API where it is, and nothing where it would have been.
func TestRefusedReloadKeepsAdmin(t *testing.T) {
	g := run(t, hosted("", ""))
	other := filepath.Join(g.folder, "other.sock")
	g.readdress(hosted("", "access_log: FOLDER/none/access.log"), other)
	g.eventually("the reload is refused", func() bool { return strings.Contains(g.log.String(), "configuration refused") })
	if err := g.admin.Ready(); err != nil {
		t.Errorf("the admin API has gone: %v", err)
	}
	if _, err := os.Lstat(other); err == nil {
		t.Error("the admin API is where a configuration that was refused wants it")
	}
	g.readdress(hosted("", ""), other)
	g.admin.Address = "unix:" + other
	g.eventually("the admin API is where the next one wants it", func() bool { return g.admin.Ready() == nil })
}

// An access log that nobody takes anything of any more can be replaced by a reload.
func TestReloadLeavesAStuckAccessLog(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	full := os.NewFile(uintptr(fd), path)
	defer full.Close() //nolint:errcheck // at the end of a test
	for b := make([]byte, 4096); ; {
		if _, err := unix.Write(fd, b); err != nil {
			break
		}
	}
	g := run(t, hosted("", "access_log: "+path))
	answers(t, g.addr)
	g.write(hosted("", "access_log: FOLDER/access.log"))
	if err := g.admin.Reload(true); err != nil {
		t.Errorf("the reload is refused: %v", err)
	}
	for b := make([]byte, 1<<16); ; { // so that the writer ends
		if n, err := unix.Read(fd, b); n <= 0 || err != nil {
			break
		}
	}
}
