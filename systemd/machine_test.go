package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstID is the host's id of the machine's root: what gets out of the machine is nobody there.
	firstID = 1 << 30
	idCount = 1 << 16
	// patience bounds each wait for the machine.
	patience = 20 * time.Second
	// lookEvery is how often a wait looks.
	lookEvery = 20 * time.Millisecond
)

// bootUnits are the distribution's units that the machine has. Others that they want are not there, and not missed.
var bootUnits = []string{"sysinit.target", "basic.target", "sockets.target", "multi-user.target", "timers.target", "paths.target",
	"slices.target", "shutdown.target", "umount.target", "final.target", "local-fs.target", "local-fs-pre.target",
	"network-online.target", "network.target", "nss-lookup.target",
	"systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket",
	"sysinit.target.wants/systemd-journald.service"}

// machine is a host of its own in namespaces, with the distribution's systemd and programs, its own users, network and files.
type machine struct {
	t    *testing.T
	root string // its /
	pid  int    // of its systemd
	net  *os.File
}

// boot starts a machine on which make install has put a binary. Its control groups, namespaces and files end with the test.
func boot(t *testing.T, binary string) *machine {
	t.Helper()
	m := &machine{t: t, root: layOut(t)}
	m.install(binary)
	own(t, m.root)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: idCount}}
	c := exec.Command("unshare", "--cgroup", "--", "testdata/boot", m.root, "multi-user.target")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Credential: &syscall.Credential{}, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		UseCgroupFD: true, CgroupFD: newGroup(t),
		Pdeathsig: unix.SIGKILL, // also when the test is ended by its time limit
	}
	var said strings.Builder
	c.Stdout, c.Stderr = &said, &said
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // whose end, too, would be the process's
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait()
		}
	}()
	if err := <-started; err != nil {
		unable(t, "a process cannot have namespaces of its own: %v", err)
	}
	m.pid = c.Process.Pid
	t.Cleanup(func() {
		_ = c.Process.Kill() // takes all its processes with it
		<-ended
	})
	var err error
	if m.net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.net.Close() })
	var state string
	up := func() bool {
		select {
		case <-ended:
			unable(t, "systemd cannot have a root of its own: %s\n%s", said.String(), read(t, filepath.Join(m.root, "boot.log")))
		default:
		}
		state, _ = m.try("systemctl", "is-system-running")
		return state == "running"
	}
	if !wait(up) {
		unable(t, "systemd does not come up here: %s\n%s", state, read(t, filepath.Join(m.root, "boot.log")))
	}
	return m
}

// unable skips a test that cannot run on this host; where SLUICE_SYSTEMD_TEST=required it fails.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("SLUICE_SYSTEMD_TEST") == "required" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// newGroup makes the control group that is the machine's root of all.
func newGroup(t *testing.T) (fd int) {
	t.Helper()
	at := ""
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		left, right, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(left); strings.HasPrefix(right, "cgroup2 ") && len(fields) > 4 {
			at = fields[4]
		}
	}
	if at == "" {
		unable(t, "there is no unified hierarchy of control groups")
	}
	name, err := os.MkdirTemp(at, "sluice-test-")
	if err != nil {
		unable(t, "no control group can be made: %v", err)
	}
	group, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = group.Close()
		wait(func() bool { return removeGroups(name) == nil }) // processes that were killed leave it late
	})
	for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(name, file), firstID, firstID); err != nil {
			t.Fatal(err)
		}
	}
	return int(group.Fd())
}

// removeGroups removes a control group, and before it those below.
func removeGroups(name string) error {
	entries, err := os.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroups(filepath.Join(name, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(name))
}

// layOut makes a machine's root.
func layOut(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // the machine's users are not this one
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"usr", "usr.local", "proc", "sys", "run", "tmp", "dev", "root", "var/log/journal", "var/lib", "etc/systemd/system",
		"lib.units/sysinit.target.wants"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range bootUnits {
		if err := os.Symlink(filepath.Join("/usr/lib/systemd/system", filepath.Base(name)), filepath.Join(root, "lib.units", name)); err != nil {
			t.Fatal(err)
		}
	}
	put("boot.log", "")
	put("etc/machine-id", strings.Repeat("5", 32)+"\n") // without one it would be a first boot
	put("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n")
	put("etc/group", "root:x:0:\nnogroup:x:65534:\n")

	// What is installed lies beside the place of the host's /usr, over which it is mounted.
	if err := os.Symlink("../usr.local", filepath.Join(root, "usr/local")); err != nil {
		t.Fatal(err)
	}
	return root
}

// own gives what lies in a folder to the machine's root.
func own(t *testing.T, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, firstID, firstID))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// install does what make install does, also while the machine runs.
func (m *machine) install(binary string) {
	m.t.Helper()
	command(m.t, []string{"DESTDIR=" + m.root, "PREFIX=/usr/local"}, "./install", binary)
	own(m.t, filepath.Join(m.root, "usr.local"))
}

// try runs a program on the machine.
func (m *machine) try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	c := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.pid), "-U", "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
		"--", "env", "-i", "PATH=/usr/local/bin:/usr/bin:/usr/sbin", "SYSTEMD_PAGER=", name}, args...)...)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try of what must not fail.
func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.try(name, args...)
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// wait waits for something, and says whether it came.
func wait(ok func() bool) bool {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(lookEvery) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// eventually waits for what must come.
func (m *machine) eventually(what string, ok func() bool) {
	m.t.Helper()
	if !wait(ok) {
		m.t.Fatalf("not within %v: %s", patience, what)
	}
}

// put writes a file of the machine's. It is root's there, unless it is there already.
func (m *machine) put(name, text string) {
	m.t.Helper()
	at := filepath.Join(m.root, name)
	_, missing := os.Stat(at)
	err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644))
	if missing != nil {
		err = errors.Join(err, os.Lchown(at, firstID, firstID))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// inside runs f on a thread in the machine's network: a socket belongs for good to the one in which it was made.
func (m *machine) inside(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never back: the thread ends with the goroutine
		if err = unix.Setns(int(m.net.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}

// dial connects from the machine to itself.
func (m *machine) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = m.inside(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// listen listens on the machine.
func (m *machine) listen(address string) (l net.Listener) {
	m.t.Helper()
	err := m.inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}
