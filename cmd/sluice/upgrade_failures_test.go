package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// crasher is a binary that passes every check and then does what its last line says.
const crasher = `#!/bin/sh
case "$1" in
version) echo "sluice broken"; exit 0;;
check) exit 0;;
esac
`

// testUpgradeFails has upgrades fail in every way that we know, under a client that notices nothing; then one succeeds.
func testUpgradeFails(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "10s")
	before := s.status()
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close() //nolint:errcheck // at the end of a test
	var stop atomic.Bool
	var work sync.WaitGroup
	defer work.Wait()
	defer stop.Store(true)
	c := &upgradeClient{name: "kept", addr: s.addr("http"), once: kept}
	work.Go(func() {
		if err := c.run(&stop); err != nil {
			t.Error(err)
		}
	})
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	// The configuration is found by the command in the file as it is, so that it is named where the file is broken.
	at := []string{"--wait", "--admin", s.admin.Address}
	failed := map[string]int{}
	for _, f := range []struct{ name, binary, config, want, reason string }{
		{"no binary", filepath.Join(s.folder, "nowhere"), "", "no such file", "binary"},
		{"no program", s.put("text", "no program", 0o755), "", "its command \"version\" failed", "binary"},
		{"another program", s.put("other", "#!/bin/sh\necho hello", 0o755), "", "asked for its version it says", "binary"},
		{"a broken configuration", "", strings.Replace(string(good), "routes:", "rutes:", 1), "its command \"check\" failed", "config"},
		{"a crash", s.put("crash", crasher+"echo boom >&2; exit 7", 0o755), "", "exit status 7", "new_process"},
		{"an end without a word", s.put("silent", crasher+"exit 0", 0o755), "", "exited", "new_process"},
		{"an address that is taken", "", strings.Replace(string(good), `"127.0.0.1:0",`, `"127.0.0.1:0", "`+occupied.Addr().String()+`",`, 1), "address already in use", "bind_in_use"},
	} {
		config, args := string(good), at
		if f.config != "" {
			config = f.config
		}
		if f.binary != "" {
			args = append([]string{"--binary", f.binary}, at...)
		}
		s.put("sluice.yaml", config, 0o600)
		told, err := s.upgradeBy(args...)
		if err == nil || !strings.Contains(told, f.want) {
			t.Errorf("%s: %q, want %q; %v", f.name, told, f.want, err)
		}
		now := s.status()
		if now.PID != before.PID || now.State != "serving" || now.Upgrade == nil || !strings.Contains(now.Upgrade.Error, f.want) || now.Upgrade.Reason != f.reason {
			t.Fatalf("%s: %+v, %+v\n%s", f.name, now, now.Upgrade, s.log())
		}
		if !strings.Contains(s.log(), "upgrade failed: this process goes on\" reason="+f.reason+" ") {
			t.Errorf("%s: not in the log", f.name)
		}
		failed[f.reason]++
		s.hasCounted(`sluice_upgrade_failures_total{reason="`+f.reason+`"}`, failed[f.reason])
	}
	s.put("sluice.yaml", string(good), 0o600)
	if !strings.Contains(s.log(), "boom") {
		t.Error("what a process that crashed has said is not in the log")
	}
	fds, _ := resources(t, before.PID)
	told, err := s.upgradeBy(append([]string{"--binary", filepath.Join(s.folder, "crash")}, at...)...)
	if err == nil {
		t.Error(told)
	}
	s.eventually("a failed upgrade leaves no descriptors", func() bool {
		now, _ := resources(t, before.PID)
		return now <= fds
	})
	s.point(1)
	if now := s.upgraded("command"); now.Version != "two" {
		t.Errorf("version %s", now.Version)
	}
	// What the process before has counted goes on here.
	failed["new_process"]++
	for reason, n := range failed {
		s.hasCounted(`sluice_upgrade_failures_total{reason="`+reason+`"}`, n)
	}
	s.hasCounted(`sluice_upgrades_total{result="failed"}`, 8)
	s.hasCounted(`sluice_upgrades_total{result="done"}`, 1)
}

// hasCounted waits until a series of the gateway that serves has this value.
func (s *site) hasCounted(series string, want int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s is %d", series, want), func() bool {
		text, err := s.admin.Metrics()
		return err == nil && strings.Contains(string(text), fmt.Sprintf("\n%s %d\n", series, want))
	})
}

// testUpgradeDuringDrain finds that a process is replaced once at a time, that its older one is shown, and that both end when
// the service is stopped.
func testUpgradeDuringDrain(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "20s")
	c := &upgradeClient{addr: s.addr("http")}
	tunnel := openTunnel(t, c)
	idle, streaming := &upgradeClient{addr: c.addr}, &upgradeClient{addr: c.addr}
	if err := kept(idle); err != nil {
		t.Fatal(err)
	}
	rest := s.beginSlow(streaming)
	s.point(1)
	if err := s.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	before, upgrading := s.status(), time.Now()
	if told, err := s.upgrade("--wait"); err != nil {
		t.Fatalf("%s\n%s", told, s.log())
	}
	var older *admin.OlderStatus
	s.eventually("the older process is shown with its connection", func() bool {
		older = s.status().Older
		return older != nil && older.Connections == 3
	})
	if older.PID != before.PID || older.Version != "one" || older.Exchanges != 2 || time.Until(older.Until) > 20*time.Second || time.Until(older.Until) < 0 {
		t.Errorf("%+v", older)
	}
	if older.Process != 1 || older.Generation != before.Generation || !older.Started.Equal(before.ProcessStarted) ||
		older.Since.Before(upgrading) || older.Since.After(time.Now()) || !older.Until.Equal(older.Since.Add(20*time.Second)) {
		t.Errorf("the older process, %+v, was %+v", older, before)
	}
	now := s.status()
	if before.Process != 1 || now.Process != 2 || now.Upgrades != 1 || now.Generation != before.Generation+1 || now.ProcessStarted.Before(upgrading) {
		t.Errorf("%+v, and before %+v", now, before)
	}
	if line := regexp.MustCompile(fmt.Sprintf(`older process +pid %d, version one, process 1, generation %d, up \d+s, drains since \d+s, ends within \d+s: 3 connections`,
		before.PID, before.Generation)); !line.MatchString(s.ctl("status")) {
		t.Errorf("ctl status says\n%s", s.ctl("status"))
	}
	s.seen[now.PID] = true
	want := fmt.Sprintf("%d, still drains: 3 connections", before.PID)
	if told, err := s.upgrade("--wait"); err == nil || !strings.Contains(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
	s.hasCounted(`sluice_upgrade_failures_total{reason="busy"}`, 1)
	// Neither an idle connection, nor one whose answer had begun without a word of the end, is closed before it is told.
	rest()
	for _, c := range []*upgradeClient{idle, streaming} {
		if err := kept(c); err != nil || c.ended != 1 {
			t.Errorf("a request on a kept connection: %v, told of the end %d times", err, c.ended)
		}
	}
	if echo(tunnel, "alive") != "alive" {
		t.Error("the tunnel has ended")
	}
	if err := syscall.Kill(s.status().PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.eventually("the older process is told", func() bool { return strings.Contains(s.log(), "told to stop: the drain goes on") })
	if echo(tunnel, "still alive") != "still alive" {
		t.Error("the tunnel has ended with the service's stop, not with the drain")
	}
	_ = tunnel.Close()
	s.eventually("the new process waits for the older one", func() bool { return strings.Contains(s.log(), "the process before has ended") })
}

// beginSlow begins a request whose answer comes to its end when rest is called.
func (s *site) beginSlow(c *upgradeClient) (rest func()) {
	s.t.Helper()
	conn, err := c.dial()
	if err != nil {
		s.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	c.conn, c.read = conn, bufio.NewReader(conn)
	s.t.Cleanup(c.hangUp)
	if _, err := conn.Write([]byte("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")); err != nil {
		s.t.Fatal(err)
	}
	res, err := http.ReadResponse(c.read, nil)
	if err != nil || res.Close {
		s.t.Fatalf("%+v, %v", res, err)
	}
	return func() {
		s.t.Helper()
		close(s.slow)
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "slow end" {
			s.t.Fatalf("%q, %v", body, err)
		}
	}
}

// openTunnel opens a WebSocket by hand, of which every byte is returned in frames of its own.
func openTunnel(t *testing.T, c *upgradeClient) net.Conn {
	t.Helper()
	conn, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("GET /socket HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	for r := bufio.NewReader(oneByOne{conn}); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return conn
		}
	}
}

// oneByOne keeps a buffered reader from taking more than a head.
type oneByOne struct{ net.Conn }

func (o oneByOne) Read(p []byte) (int, error) { return o.Conn.Read(p[:1]) }

// echo sends a text as a masked frame and gives the text of the frame that comes back (RFC 6455, 5.2). The mask is zero.
func echo(conn net.Conn, text string) string {
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	if _, err := conn.Write(frame); err != nil {
		return err.Error()
	}
	back := make([]byte, 2+len(text))
	for n := 0; n < len(back); {
		k, err := conn.Read(back[n:])
		if err != nil {
			return err.Error()
		}
		n += k
	}
	return string(back[2:])
}

// testUpgradeHangs stops the service while an upgrade does not come to an end: the new process is killed, the old one drains.
func testUpgradeHangs(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "5s")
	pidFile := filepath.Join(s.folder, "pid")
	hang := s.put("hang", crasher+"echo $$ > "+pidFile+"\nexec sleep 60", 0o755)
	if told, err := s.upgradeBy("--binary", hang, "--admin", s.admin.Address); err != nil {
		t.Fatalf("%q, %v", told, err)
	}
	pid := 0
	s.eventually("the new process has begun", func() bool {
		text, _ := os.ReadFile(pidFile)
		_, err := fmt.Sscan(string(text), &pid)
		return err == nil
	})
	s.seen[pid] = true // must be gone at the end
	if st := s.status(); st.Upgrade == nil || !st.Upgrade.UnderWay {
		t.Errorf("%+v", st.Upgrade)
	}
	if err := s.admin.Reload(false); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("a reload during an upgrade: %v", err)
	}
	if told, err := s.upgrade(); err == nil || !strings.Contains(told, "under way") {
		t.Errorf("an upgrade during an upgrade: %q", told)
	}
}

// testUpgradeEnvironment finds in the new process what is of the service, and not what systemd gave to one process only; and
// that an address, with its unix socket, that the new configuration does not have is closed.
func testUpgradeEnvironment(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "5s", "LISTEN_PID=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=a:b:c", "WATCHDOG_USEC=60000000", "NOTIFY_SOCKET=@x")
	path := filepath.Join(s.folder, "http.sock")
	addr := s.addr("http")
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.put("sluice.yaml", strings.Replace(string(config), `, "unix:`+path+`"`, "", 1), 0o600)
	now := s.upgraded("signal")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", now.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"} {
		if strings.Contains(string(text), name+"=") {
			t.Errorf("%s is passed on", name)
		}
	}
	for _, name := range []string{"WATCHDOG_USEC", "NOTIFY_SOCKET"} {
		if !strings.Contains(string(text), name+"=") {
			t.Errorf("%s is not passed on", name)
		}
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file of a socket that is no more is left")
	}
	if got := s.addr("http"); got != addr {
		t.Errorf("the address is %s, was %s", got, addr)
	}
	if fresh(&upgradeClient{addr: path}) == nil {
		t.Error("the socket is served")
	}
}

// testPrivilegedPort has a gateway without the capability for ports below 1024 refuse a reload that wants one, and say what gives it.
func testPrivilegedPort(t *testing.T, binaries [2]string) {
	first, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	setpriv, missing := exec.LookPath("setpriv")
	if start := strings.TrimSpace(string(first)); err != nil || start != "1024" || missing != nil || os.Getuid() != 0 {
		t.Skipf("ports from %s on are everybody's, or rights cannot be given up: %v, %v", start, err, missing)
	}
	s := layOut(t, binaries, "5s")
	s.start(exec.Command(setpriv, "--bounding-set", "-net_bind_service", s.link, "run", "-c", s.config))
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.put("sluice.yaml", strings.Replace(string(good), `"127.0.0.1:0",`, `"127.0.0.1:0", "127.0.0.1:1",`, 1), 0o600)
	err = s.admin.Reload(true)
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE, which the unit's drop-in 10-privileged-ports.conf gives") {
		t.Errorf("refused with %v", err)
	}
	if r := s.status().Reload; r == nil || r.Reason != "bind_permission" {
		t.Errorf("%+v", r)
	}
	s.hasCounted(`sluice_reload_failures_total{reason="bind_permission"}`, 1)
}

// testUpgradeAddsListeners finds a listener, and an address of one that was there, in the process that takes over with them, and in the next,
// which inherits them as all others. A client of what was there before notices nothing.
func testUpgradeAddsListeners(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "5s")
	plain, secure := s.addr("http"), s.addr("https")
	path := filepath.Join(s.folder, "added.sock")
	var stop atomic.Bool
	var work sync.WaitGroup
	defer work.Wait()
	defer stop.Store(true)
	work.Go(func() {
		if err := (&upgradeClient{name: "kept", addr: plain, once: kept}).run(&stop); err != nil {
			t.Error(err)
		}
	})
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.put("sluice.yaml", strings.NewReplacer(
		"listeners:\n", "listeners:\n  added: { bind: \"127.0.0.1:0\" }\n",
		`"unix:`+filepath.Join(s.folder, "http.sock")+`"`, `"unix:`+filepath.Join(s.folder, "http.sock")+`", "unix:`+path+`"`).Replace(string(config)), 0o600)
	var added string
	for n, by := range []string{"command", "signal"} {
		s.point(1 - n)
		now := s.upgraded(by)
		at := s.addr("added")
		if n > 0 && at != added {
			t.Errorf("the address is %s, was %s", at, added)
		}
		added = at
		if now.Process != n+2 || len(now.Listeners) != 3 || s.addr("http") != plain || s.addr("https") != secure {
			t.Errorf("process %d has %+v", now.Process, now.Listeners)
		}
		for _, addr := range []string{added, path, plain, filepath.Join(s.folder, "http.sock")} {
			if err := fresh(&upgradeClient{addr: addr}); err != nil {
				t.Errorf("after %d upgrades: %s: %v", n+1, addr, err)
			}
		}
	}
	for _, l := range s.status().Listeners {
		if l.Accepted == 0 && l.Name != "https" {
			t.Errorf("nothing is accepted by %+v", l)
		}
	}
}
