package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// notices is a socket in the place of systemd's, with what was said and who said it.
type notices struct {
	mu  sync.Mutex
	all []notice
}

type notice struct {
	pid  int
	text string
}

func listenForNotices(t *testing.T, path string) *notices {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	n := &notices{}
	go func() {
		text, control := make([]byte, 4096), make([]byte, 4096)
		for {
			k, oob, _, _, err := c.ReadMsgUnix(text, control)
			if err != nil {
				return
			}
			n.hear(string(text[:k]), control[:oob])
		}
	}()
	return n
}

// hear adds a message, and closes the descriptors that came with it.
func (n *notices) hear(text string, control []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	said := notice{text: text}
	messages, _ := unix.ParseSocketControlMessage(control)
	for i := range messages {
		if from, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			said.pid = int(from.Pid)
		}
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	n.all = append(n.all, said)
}

// index is where pid said what begins with text; -1: it did not.
func (n *notices) index(pid int, text string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.IndexFunc(n.all, func(s notice) bool { return s.pid == pid && strings.HasPrefix(s.text, text) })
}

// testUpgradeUnderSystemd has systemd hear of a new main process from the old one, which says nothing more, before the new one says
// anything; and finds that sockets which systemd passed, on another address than the listener's, are served by both.
func testUpgradeUnderSystemd(t *testing.T, binaries [2]string) {
	s := layOut(t, binaries, "5s")
	n := listenForNotices(t, filepath.Join(s.folder, "notify"))
	passed, err := net.Listen("tcp", "127.0.0.1:0") // without SO_REUSEPORT: more loops need copies
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close() //nolint:errcheck // systemd has it, too
	file, err := passed.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // likewise
	stays, goes := freeAddress(t), freeAddress(t)
	both, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(both), "listeners:\n", "listeners:\n  named: { bind: \"127.0.0.1:1\" }\n  stays: { bind: \""+stays+"\" }\n", 1)
	s.put("sluice.yaml", strings.Replace(text, "listeners:\n", "listeners:\n  goes: { bind: \""+goes+"\" }\n", 1), 0o600)
	c := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" run -c "$1"`, s.link, s.config)
	c.ExtraFiles = []*os.File{file}
	s.start(c, "LISTEN_FDS=1", "LISTEN_FDNAMES=named", "WATCHDOG_USEC=600000", "NOTIFY_SOCKET="+filepath.Join(s.folder, "notify"))
	old := s.first.Process.Pid
	s.eventually("systemd knows that it is ready", func() bool { return n.index(old, "READY=1") >= 0 })

	for loops := 3; loops >= 1; loops -= 2 {
		s.put("sluice.yaml", strings.Replace(text, "loops: 2", fmt.Sprintf("loops: %d", loops), 1), 0o600)
		now := s.upgraded("command")
		s.eventually("the new process's watchdog is fed", func() bool { return n.index(now.PID, "WATCHDOG=1") >= 0 })
		told := n.index(old, fmt.Sprintf("MAINPID=%d", now.PID))
		for _, own := range []string{"READY=1", "FDSTORE=1\nFDNAME=" + strings.Replace(stays, ":", "%3A", 1),
			"FDSTORE=1\nFDNAME=unix%3A" + filepath.Join(s.folder, "http.sock") + "@"} {
			if at := n.index(now.PID, own); told < 0 || at < told {
				t.Errorf("%d loops: MAINPID is message %d, %q message %d", loops, told, own, at)
			}
		}
		n.mu.Lock()
		for i, said := range n.all {
			if said.pid == now.PID && i < told || said.pid == old && i > told {
				t.Errorf("%d loops: message %d of %d, the old process being %d: %q", loops, i, said.pid, old, said.text)
			}
		}
		n.mu.Unlock()
		for range 8 {
			for _, addr := range []string{passed.Addr().String(), stays} {
				if err := fresh(&upgradeClient{addr: addr}); err != nil {
					t.Errorf("%d loops: %s: %v", loops, addr, err)
				}
			}
		}
		old = now.PID
	}
	if n.index(s.first.Process.Pid, "FDSTOREREMOVE=1\nFDNAME="+strings.Replace(goes, ":", "%3A", 1)) < 0 {
		t.Error("a socket that is listened on no longer stays with systemd")
	}
	if n.index(s.first.Process.Pid, "STOPPING=1") >= 0 {
		t.Error("the service is said to stop")
	}
	s.kept = "http.sock"
	if t.Failed() {
		t.Log(s.log())
	}
}

// testSuccessorDies has a process that drains end with the one that has taken over, of whose death systemd does not hear; without
// systemd it goes on, and says once what has happened.
func testSuccessorDies(t *testing.T, binaries [2]string) {
	f := func(systemd bool) {
		t.Helper()
		s := layOut(t, binaries, "20s")
		c := exec.Command(s.link, "run", "-c", s.config)
		if systemd {
			listenForNotices(t, filepath.Join(s.folder, "notify"))
			s.start(c, "NOTIFY_SOCKET="+filepath.Join(s.folder, "notify"))
		} else {
			s.start(c)
		}
		tunnel := openTunnel(t, &upgradeClient{addr: s.addr("http")})
		if told, err := s.upgrade("--wait"); err != nil {
			t.Fatalf("%s\n%s", told, s.log())
		}
		if err := unix.Kill(s.status().PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		const gone, cut = "the process that has taken over has ended", "drain cut short, so that systemd sees"
		s.eventually("the death is noticed", func() bool { return strings.Contains(s.log(), gone) })
		if systemd {
			s.eventually("the drain ends", func() bool { return strings.Contains(s.log(), cut) && echo(tunnel, "dead") != "dead" })
		} else {
			for begun := time.Now(); time.Since(begun) < 1200*time.Millisecond; { // two more reports would be due
				if echo(tunnel, "alive") != "alive" {
					t.Fatal("the tunnel has ended")
				}
			}
			if strings.Count(s.log(), gone) != 1 || strings.Contains(s.log(), cut) {
				t.Error(s.log())
			}
		}
		_ = tunnel.Close()
		for _, left := range []string{"admin.sock", "http.sock"} { // a process that is killed leaves them
			if err := os.Remove(filepath.Join(s.folder, left)); err != nil {
				t.Error(err)
			}
		}
	}
	f(true)
	f(false)
}

// freeAddress is one on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // its address is what is wanted
	return l.Addr().String()
}
