package systemd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	// shortWatchdog and shortStop take the place of the unit's, so that what comes after them comes soon.
	shortWatchdog = 5 * time.Second
	shortStop     = time.Second
	// longDrain is how long a client holds up a stop, far beyond shortStop.
	longDrain = 3 * time.Second
	// crashes are more than the five starts in ten seconds after which systemd gives up unless told otherwise.
	crashes = 7
)

// sandboxed are the properties of the unit that systemd says are in force.
var sandboxed = [...]string{"User=sluice", "Group=sluice", "NoNewPrivileges=yes", "PrivateDevices=yes", "PrivateTmp=yes",
	"ProtectSystem=strict", "ProtectHome=yes", "ProtectProc=invisible", "MemoryDenyWriteExecute=yes", "LockPersonality=yes",
	"RestrictSUIDSGID=yes", "ProtectKernelTunables=yes", "WatchdogSignal=6"}

// testStart does what the README says: it serves when start returns, and says what.
func testStart(t *testing.T, s *service) {
	s.run("systemd-sysusers", "sluice.conf")
	s.run("systemd-tmpfiles", "--create", "sluice.conf")
	s.configure("")
	s.put("etc/systemd/system/sluice.service.d/short.conf",
		fmt.Sprintf("[Service]\nWatchdogSec=%v\nTimeoutStopSec=%v\n", shortWatchdog, shortStop))
	s.run("systemctl", "daemon-reload")
	s.run("sluice", "check")
	s.run("systemctl", "enable", "--now", "sluice")
	s.answers("http://127.0.0.1/", "200 upstream")
	s.answers("http://[::1]:443/", "200 upstream")
	s.is("ActiveState=active", "SubState=running", "Result=success", "NRestarts=0", "UnitFileState=enabled")
	if status := s.property("StatusText"); !regexp.MustCompile(`^2 listeners, 1 route, \d+ connections?`).MatchString(status) {
		t.Errorf("status: %q", status)
	}
	if n := s.property("NFileDescriptorStore"); n == "0" {
		t.Error("systemd keeps no sockets")
	}
}

// testHardening asks systemd, and then the kernel.
func testHardening(t *testing.T, s *service) {
	s.is(sandboxed[:]...)
	s.confined("0000000000000400") // CAP_NET_BIND_SERVICE
}

// confined finds the main process to be what the unit makes of it, with these capabilities and no way to others.
func (s *service) confined(capabilities string) {
	s.t.Helper()
	proc := "/proc/" + s.property("MainPID")
	status := map[string]string{}
	for line := range strings.Lines(s.run("cat", proc+"/status")) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.Join(strings.Fields(value), " ")
	}
	uid := s.run("id", "-u", "sluice")
	for name, want := range map[string]string{
		"Uid": strings.Repeat(" "+uid, 4)[1:], "NoNewPrivs": "1", "Seccomp": "2", "CapEff": capabilities, "CapBnd": capabilities,
	} {
		if uid == "0" || status[name] != want {
			s.t.Errorf("%s of the main process: %s, want %s", name, status[name], want)
		}
	}
	mode := map[string]string{} // the last mount at a place hides those before
	for line := range strings.Lines(s.run("cat", proc+"/mountinfo")) {
		if f := strings.Fields(line); len(f) > 5 {
			mode[f[4]], _, _ = strings.Cut(f[5], ",")
		}
	}
	for place, want := range map[string]string{"/": "ro", "/usr/local": "ro", "/proc/sys": "ro", "/sys/fs/cgroup": "ro", "/dev": "ro",
		"/run/sluice": "rw", "/var/lib/sluice": "rw", "/var/log/sluice": "rw", "/tmp": "rw"} {
		if mode[place] != want {
			s.t.Errorf("%s is %q for the main process, want %q", place, mode[place], want)
		}
	}
}

// testReload has the new configuration in force when reload returns.
func testReload(t *testing.T, s *service) {
	pid := s.property("MainPID")
	s.answers("http://127.0.0.1/new", "200 upstream")
	s.configure("  - { match: \"/new\", respond: { body: \"new\" } }\n")
	s.run("systemctl", "reload", "sluice")
	s.answers("http://127.0.0.1/new", "200 new")
	s.is("ActiveState=active", "MainPID="+pid)
	if status := s.property("StatusText"); !strings.Contains(status, "2 routes") || !strings.Contains(status, "; reloaded ") {
		t.Errorf("status: %q", status)
	}
}

// testRefusedReload has a wrong configuration fail in the operator's face, with the place, and the one before it serve.
func testRefusedReload(t *testing.T, s *service) {
	pid := s.property("MainPID")
	s.configure("  - { match: \"/new\", respnd: { body: \"newer\" } }\n")
	if out, err := s.try("systemctl", "reload", "sluice"); err == nil {
		t.Errorf("reload succeeds: %s", out)
	}
	s.answers("http://127.0.0.1/new", "200 new")
	s.is("ActiveState=active", "MainPID="+pid)
	if status := s.property("StatusText"); !strings.Contains(status, "reload refused") {
		t.Errorf("status: %q", status)
	}
	if shown, _ := s.try("systemctl", "status", "--no-pager", "sluice"); !regexp.MustCompile(`sluice\.yaml:8:\d+: .*respnd`).MatchString(shown) {
		t.Errorf("systemctl status does not tell the place:\n%s", shown)
	}
	s.configure("  - { match: \"/new\", respond: { body: \"new\" } }\n")
	s.run("systemctl", "reload", "sluice")
}

// testUpgrade replaces the binary by the signal, and once more by the command, while clients ask.
func testUpgrade(t *testing.T, s *service) {
	l := s.begin()
	s.during(l, 50)
	s.install(s.after)
	s.run("systemctl", "daemon-reload")
	for _, upgrade := range []func(){
		func() { s.signal("USR2") },
		func() { s.run("sluice", "upgrade", "--wait") },
	} {
		old := s.property("MainPID")
		upgrade()
		s.eventually("systemd has another main process", func() bool {
			s.is("ActiveState=active")
			return s.property("MainPID") != old
		})
		s.during(l, 50)
		s.eventually("the old process ends", func() bool {
			_, err := s.try("test", "-d", "/proc/"+old)
			return err != nil
		})
		s.is("ActiveState=active", "SubState=running", "NRestarts=0")
	}
	s.end(l)
	if status := s.run("sluice", "ctl", "status"); !regexp.MustCompile(`(?m)^version +after `).MatchString(status) {
		t.Errorf("another version serves:\n%s", status)
	}
	s.confined("0000000000000400")
}

// testRefusedUpgrade has a binary that cannot serve take over nothing.
func testRefusedUpgrade(t *testing.T, s *service) {
	pid := s.property("MainPID")
	at := filepath.Join(s.root, "usr.local/bin/sluice")
	if err := os.Rename(at, at+".good"); err != nil {
		t.Fatal(err)
	}
	s.put("usr.local/bin/sluice", "#!/bin/sh\nexit 7\n")
	if err := os.Chmod(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := s.try("/usr/local/bin/sluice.good", "upgrade", "--wait"); err == nil || !strings.Contains(out, "exit status 7") {
		t.Errorf("the upgrade ends with %v: %s", err, out)
	}
	if err := os.Rename(at+".good", at); err != nil {
		t.Fatal(err)
	}
	s.answers("http://127.0.0.1/", "200 upstream")
	s.is("ActiveState=active", "MainPID="+pid, "NRestarts=0")
}

// testCrash has clients wait for the next process instead of being refused: systemd keeps the sockets.
func testCrash(t *testing.T, s *service) {
	old, restarts := s.property("MainPID"), s.restarts()
	s.signal("KILL")
	begun := time.Now()
	s.answers("http://127.0.0.1/", "200 upstream") // within RestartSec=, when nobody serves
	s.answers("http://127.0.0.1:443/new", "200 new")
	t.Logf("served again after %v", time.Since(begun).Round(time.Millisecond))
	s.active()
	s.is(fmt.Sprintf("NRestarts=%d", restarts+1))
	if s.property("MainPID") == old {
		t.Error("the process has not ended")
	}
}

// testCrashAfterUpgrade has a process die whose predecessor, which is its parent, still drains. systemd does not see that by itself.
func testCrashAfterUpgrade(t *testing.T, s *service) {
	answered := s.askSlowly()
	old := s.property("MainPID")
	s.run("sluice", "upgrade", "--wait")
	s.eventually("systemd has another main process", func() bool { return s.property("MainPID") != old })
	begun := time.Now()
	s.signal("KILL")
	s.answers("http://127.0.0.1/", "200 upstream")
	if took := time.Since(begun); took > shortWatchdog-time.Second {
		t.Errorf("served again after %v: the watchdog had to end it", took)
	}
	s.active()
	if got := <-answered; strings.HasPrefix(got, "200") {
		t.Errorf("the process before has drained: %s", got)
	}
}

// testCrashLoop crashes it more often than systemd's defaults put up with: a gateway that stays down is of no use to anybody.
func testCrashLoop(t *testing.T, s *service) {
	s.put("etc/systemd/system/sluice.service.d/soon.conf", "[Service]\nRestartSec=50ms\n")
	s.run("systemctl", "daemon-reload")
	for range crashes {
		s.signal("KILL")
		s.answers("http://127.0.0.1/", "200 upstream")
		s.active()
	}
}

// active waits until systemd has heard that the gateway serves, which clients may know before.
func (s *service) active() {
	s.t.Helper()
	s.eventually("the unit is active", func() bool { return s.property("ActiveState") == "active" })
}

// testRestart is an upgrade of the package: requests under way end, others wait. The main process is one that has taken over, which
// systemd 252 would not wait for by itself.
func testRestart(t *testing.T, s *service) {
	l := s.begin()
	s.during(l, 50)
	old := s.property("MainPID")
	s.run("systemctl", "restart", "sluice")
	s.during(l, 50)
	s.end(l)
	s.is("ActiveState=active", "Result=success")
	if s.property("MainPID") == old {
		t.Error("it was not restarted")
	}
}

// testWatchdog ends a process that hangs, and starts another.
func testWatchdog(t *testing.T, s *service) {
	restarts := s.restarts()
	s.signal("STOP")
	s.eventually("systemd starts it anew", func() bool { return s.restarts() > restarts })
	s.active()
	s.answers("http://127.0.0.1/", "200 upstream")
	if log := s.run("journalctl", "--no-pager", "-u", "sluice"); !strings.Contains(log, "Watchdog timeout") {
		t.Error("it was not the watchdog")
	}
}

// testDrain stops the service while a client is served for longer than the unit allows: the gateway asks for the time, also one that
// has taken over.
func testDrain(t *testing.T, s *service) {
	s.run("sluice", "upgrade", "--wait")
	s.eventually("the process before has ended", func() bool { return !strings.Contains(s.run("sluice", "ctl", "status"), "older") })
	answered, stopped := s.askSlowly(), make(chan string, 1)
	go func() {
		out, err := s.try("systemctl", "stop", "sluice")
		stopped <- fmt.Sprint(out, err)
	}()
	begun := time.Now()
	s.eventually("the drain lasts", func() bool { return time.Since(begun) > longDrain })
	s.is("ActiveState=deactivating")
	if status := s.property("StatusText"); !strings.HasPrefix(status, "draining: 1 connection, at most ") {
		t.Errorf("status: %q", status)
	}
	close(s.release)
	if got := <-answered; got != "200 upstream <nil>" {
		t.Errorf("the client that was served is told %s", got)
	}
	if got := <-stopped; got != "<nil>" {
		t.Errorf("stop: %s", got)
	}
	s.nothingLeft()
}

// askSlowly is a client that waits, until the test releases the upstream, for an answer, which comes over the channel.
func (s *service) askSlowly() (answered chan string) {
	s.t.Helper()
	answered = make(chan string, 1)
	go func() {
		got, err := ask(s.client(false), "http://127.0.0.1/slow")
		answered <- fmt.Sprint(got, " ", err)
	}()
	select {
	case <-s.entered:
	case got := <-answered:
		s.t.Fatalf("the client is told %s", got)
	}
	return answered
}

// testSocketActivation has systemd listen: the first client starts the gateway, which needs no capability then.
func testSocketActivation(t *testing.T, s *service) {
	off := filepath.Join(s.root, "etc/systemd/system/sluice.service.d/10-privileged-ports.conf")
	if err := os.Symlink("/dev/null", off); err != nil {
		t.Fatal(err)
	}
	s.run("systemctl", "daemon-reload")
	s.run("systemctl", "start", "sluice.socket")
	s.is("ActiveState=inactive")
	s.answers("http://127.0.0.1/", "200 upstream")
	s.answers("http://[::1]:443/new", "200 new")
	s.active()
	s.is("PrivateUsers=yes")
	s.confined("0000000000000000")

	s.signal("KILL")
	s.answers("http://127.0.0.1/", "200 upstream")
	s.active()
	old := s.property("MainPID")
	s.run("sluice", "upgrade", "--wait")
	s.answers("http://127.0.0.1/", "200 upstream")
	s.is("ActiveState=active")
	if s.property("MainPID") == old {
		t.Error("the upgrade has made no other main process")
	}
	s.run("systemctl", "stop", "sluice.socket", "sluice.service")
	s.nothingLeft()
}
