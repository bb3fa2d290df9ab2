package systemd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
)

// mostExposed is the worst score that the service may have in the security review of systemd-analyze, from 0 to 10.
const mostExposed = 2.0

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// units installs the units in a folder, so that their programs are there, and with those drop-ins only.
func units(t *testing.T, dropins ...string) (service, socket string) {
	t.Helper()
	prefix := t.TempDir()
	command(t, []string{"DESTDIR=", "PREFIX=" + prefix, "WITHOUT_CONFIG=1"}, "./install", standIn(t))
	folder := filepath.Join(prefix, "lib/systemd/system")
	if err := os.RemoveAll(filepath.Join(folder, "sluice.service.d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "sluice.service.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range dropins {
		text := strings.ReplaceAll(read(t, "dropins/"+d), "/usr/bin/sluice", prefix+"/bin/sluice")
		if err := os.WriteFile(filepath.Join(folder, "sluice.service.d", d), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(folder, "sluice.service"), filepath.Join(folder, "sluice.socket")
}

// dropins are all that are shipped.
func dropins(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("dropins")
	if err != nil || len(entries) < 3 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// systemd finds nothing to say against the units, with and without drop-ins.
func TestUnitsAreValid(t *testing.T) {
	need(t, "systemd-analyze")
	f := func(dropins ...string) {
		t.Helper()
		service, socket := units(t, dropins...)
		for _, unit := range []string{service, socket} {
			// What it warns of it lets pass: any word about this unit is one too many.
			out, err := tryCommand(nil, "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
			if err != nil || strings.Contains(out, "sluice") {
				t.Errorf("%s with %v: %v\n%s", filepath.Base(unit), dropins, err, out)
			}
		}
	}
	f()
	for _, d := range dropins(t) {
		f(d)
	}
	f(dropins(t)...)
}

// The service can do little harm to its host.
func TestUnitsAreHardened(t *testing.T) {
	need(t, "systemd-analyze")
	score := regexp.MustCompile(`Overall exposure level for sluice\.service: ([0-9.]+) `)
	f := func(dropins ...string) {
		t.Helper()
		service, _ := units(t, dropins...)
		out := command(t, nil, "systemd-analyze", "security", "--offline=true", "--no-pager", service)
		found := score.FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("no score:\n%s", out)
		}
		var level float64
		if _, err := fmt.Sscan(found[1], &level); err != nil || level > mostExposed {
			t.Errorf("with %v the exposure is %s, want at most %v\n%s", dropins, found[1], mostExposed, out)
		}
		t.Logf("with %v: %s", dropins, found[1])
	}
	f()
	f("10-privileged-ports.conf")
	f(dropins(t)...)
}

// allowed expands the filters of system calls as systemd does: what stands first says whether the rest is allowed.
func allowed(t *testing.T, unit string) map[string]bool {
	t.Helper()
	calls := map[string]bool{}
	var set func(name string, on bool)
	set = func(name string, on bool) {
		if !strings.HasPrefix(name, "@") {
			calls[name] = on
			return
		}
		for line := range strings.Lines(command(t, nil, "systemd-analyze", "--no-pager", "syscall-filter", name)) {
			if line = strings.TrimSpace(line); line != name && line != "" && line[0] != '#' {
				set(line, on)
			}
		}
	}
	set("@default", true)
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(unit, -1) {
		for name := range strings.FieldsSeq(m[2]) {
			set(name, m[1] == "")
		}
	}
	return calls
}

// The filter lets the gateway, Go and the hand-over of sockets do what they do; pinning takes its drop-in.
func TestUnitsAllowWhatIsNeeded(t *testing.T) {
	need(t, "systemd-analyze")
	unit := read(t, "sluice.service")
	calls := allowed(t, unit)
	for _, name := range strings.Fields(`accept4 bind connect listen socket setsockopt getsockopt sendmsg recvmsg epoll_create1
		epoll_ctl epoll_pwait eventfd2 splice pipe2 sendfile writev readv fcntl openat fsync renameat unlinkat fchmod clone
		clone3 execve futex mmap madvise rt_sigaction sigaltstack tgkill prlimit64 sched_getaffinity getrandom memfd_create
		pidfd_open pidfd_send_signal waitid io_uring_setup io_uring_enter inotify_init1 kcmp`) {
		if !calls[name] {
			t.Errorf("the filter forbids %s", name)
		}
	}
	for _, name := range []string{"sched_setaffinity", "mount", "ptrace", "reboot", "init_module", "bpf", "setuid"} {
		if calls[name] {
			t.Errorf("the filter allows %s", name)
		}
	}
	if !allowed(t, unit+read(t, "dropins/affinity.conf"))["sched_setaffinity"] {
		t.Error("the drop-in for affinity does not allow sched_setaffinity")
	}
}

// What hardening is known to break.
func TestUnitsHaveWhatTheGatewayRestsOn(t *testing.T) {
	unit := read(t, "sluice.service")
	f := func(why, setting string, want bool) {
		t.Helper()
		if slices.Contains(strings.Split(unit, "\n"), setting) != want {
			t.Errorf("%s: want %v of %q", why, want, setting)
		}
	}
	f("net.core.somaxconn is hidden", "ProcSubset=pid", false)
	f("systemd 252 knows no notify-reload", "Type=notify", true)
	f("a draining predecessor would be told to hurry", "KillMode=mixed", true)
	f("a refused reload must be seen", "ExecReload=/usr/bin/sluice ctl reload --wait", true)
	f("the predecessor's STOPPING=1 would end the service", "NotifyAccess=main", true)
	f("a panic, and the watchdog's ABRT, end with status 2", "RestartPreventExitStatus=2", false)
	f("the end of a successor whose predecessor drains is a success to systemd", "Restart=always", true)
	f("systemd gives up after five starts in ten seconds", "StartLimitIntervalSec=0", true)
	if !strings.Contains(unit, "\nExecStop=/bin/sh -c 'kill -TERM ") {
		t.Error("systemd does not wait for the end of a process that has taken over")
	}
	if !strings.Contains(unit, "\nFileDescriptorStoreMax=") || !strings.Contains(unit, "\nWatchdogSec=") {
		t.Error("no sockets are stored, or nobody watches")
	}
	ports := read(t, "dropins/10-privileged-ports.conf")
	if strings.Contains(ports, "CAP_") && !strings.Contains(ports, "\nPrivateUsers=no\n") {
		t.Error("a capability in a user namespace of its own opens no port of the host")
	}
}

// The first configuration is right, and has the admin API where the unit's reload asks.
func TestFirstConfiguration(t *testing.T) {
	c, problems := config.Load("sluice.yaml")
	if len(problems) > 0 {
		t.Fatalf("%s", problems)
	}
	if c.Admin.Bind.Path != "/run/sluice/admin.sock" {
		t.Errorf("the admin API is at %s", c.Admin.Bind)
	}
}
