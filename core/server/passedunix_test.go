package server

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/systemd"
)

// socketPath is where a unix socket may be.
func socketPath(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "sluice") // t.TempDir's names are too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return filepath.Join(folder, "http.sock")
}

// unixStored has systemd keep the unix socket of a gateway that has ended, and gives its name and descriptors.
func unixStored(t *testing.T, m *manager, path string) (name string, fds []int) {
	t.Helper()
	g := runIn(t, hosted(`unix: { bind: "unix:`+path+`" }`, ""), m.environment())
	m.expect("FDSTORE=1\nFDNAME=" + systemd.Name("unix:"+path) + "@.*\nFDPOLL=0")
	m.expect("READY=1\n.*")
	g.stop()
	m.expect("STOPPING=1\n.*")
	stored := m.inStore()
	if len(stored) != 1 {
		t.Fatalf("stored: %v", stored)
	}
	name = slices.Collect(maps.Keys(stored))[0]
	if len(stored[name]) != 1 {
		t.Fatalf("stored: %v", stored)
	}
	return name, stored[name]
}

// asks sends a request over a unix socket.
func asks(path string) (net.Conn, error) {
	c, err := net.Dial("unix", path)
	if err == nil {
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	return c, err
}

// gets204 reads the answer to that.
func gets204(t *testing.T, c net.Conn, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 204 ") {
		t.Fatalf("%q, %v", b, err)
	}
}

// A unix socket is kept with its file: who connects while nobody runs is served by the next gateway, which does not bind it anew, and
// removes the file when it listens there no more.
func TestSystemdStoresUnixSockets(t *testing.T) {
	m := newManager(t)
	path := socketPath(t)
	name, fds := unixStored(t, m, path)
	file := listen.FileAt(path)
	if file == "" {
		t.Fatal("the file is gone with the gateway")
	}
	var waiting []net.Conn
	for range 10 {
		c, err := asks(path)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}

	// A start that fails leaves it to the next.
	taken, address := listening(t)
	defer func() { _ = unix.Close(taken) }()
	m.pass(name, fds...)
	config := filepath.Join(filepath.Dir(path), "failing.yaml")
	if err := os.WriteFile(config, []byte(hosted(`unix: { bind: "unix:`+path+`" }, taken: { bind: "`+address+`" }`, "admin: off")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(Options{ConfigFile: config, Stderr: io.Discard, Systemd: m.environment()}); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("ended with %v", err)
	}
	m.expect("STATUS=cannot start: .*")

	m.pass(name, fds...)
	g := runIn(t, hosted(`unix: { bind: "unix:`+path+`" }`, ""), m.environment())
	m.expect("READY=1\n.*")
	for _, c := range waiting {
		gets204(t, c, nil)
	}
	c, err := asks(path)
	gets204(t, c, err)
	if got := listen.FileAt(path); got != file || g.metric(`sluice_stale_sockets_total{of="listener"}`) != "0" {
		t.Errorf("the file is %q, was %q\n%s", got, file, g.log)
	}

	g.write(hosted(`unix: { bind: "127.0.0.1:0" }`, ""))
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	m.expect("FDSTOREREMOVE=1\nFDNAME=" + name)
	if got := listen.FileAt(path); got != "" {
		t.Error("the file of a socket that is no more is left")
	}
}

// A kept unix socket that clients cannot find is dropped: by its path they come to nobody, or to somebody else's.
func TestSystemdDropsStaleUnixSockets(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			err := os.Remove(path)
			leave(t, path)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			m := newManager(t)
			path := socketPath(t)
			name, fds := unixStored(t, m, path)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			m.pass(name, fds...)
			g := runIn(t, hosted(`unix: { bind: "unix:`+path+`" }`, ""), m.environment())
			m.expect("FDSTOREREMOVE=1\nFDNAME=" + name)
			m.expect("FDSTORE=1\n(?s:.*)")
			m.expect("READY=1\n.*")
			c, err := asks(path)
			gets204(t, c, err)
			if !strings.Contains(g.log.String(), "a unix socket that systemd kept is of no use") {
				t.Errorf("it is not told:\n%s", g.log)
			}
			for name, fds := range m.inStore() {
				if len(fds) != 1 || name != systemd.Name("unix:"+path)+"@"+listen.FileAt(path) {
					t.Errorf("%s: stored %v", name, fds)
				}
			}
		})
	}
}

// A kept unix socket that the configuration does not have any more goes with its file.
func TestSystemdDropsUnusedUnixSockets(t *testing.T) {
	m := newManager(t)
	path := socketPath(t)
	name, fds := unixStored(t, m, path)
	m.pass(name, fds...)
	runIn(t, hosted(`unix: { bind: "127.0.0.1:0" }`, ""), m.environment())
	m.expect("FDSTOREREMOVE=1\nFDNAME=" + name)
	m.expect("READY=1\n.*")
	if listen.FileAt(path) != "" {
		t.Error("the file is left")
	}
}

// The file of a unix socket that a socket unit has made stays, whatever becomes of the listener, and is never stored.
func TestSystemdOwnsFilesOfSocketUnits(t *testing.T) {
	m := newManager(t)
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	f, err := l.(*net.UnixListener).File()
	_ = l.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	m.pass("sluice.socket", int(f.Fd()))
	g := runIn(t, hosted(`unix: { bind: "unix:`+path+`" }`, ""), m.environment())
	m.expect("READY=1\n.*")
	c, err := asks(path)
	gets204(t, c, err)
	g.stop()
	if stored := m.inStore(); len(stored) > 0 || listen.FileAt(path) == "" {
		t.Errorf("stored %v, the file is %q", stored, listen.FileAt(path))
	}
}
