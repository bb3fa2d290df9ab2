package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/tuning"
)

// hosted is a configuration of a host that lets the gateway have everything: with the listeners and whatever else it is given.
func hosted(listeners, more string) string {
	return "loops: 1\nlisteners: { http: { bind: \"127.0.0.1:0\" }, " + listeners + " }\nroutes: [{ match: \"/*\", respond: { status: 204 } }]\n" + more + "\n"
}

// refused reloads a configuration that must be refused for this reason: as log, status and metrics say.
func (g *running) refused(reason, config, message string) {
	g.t.Helper()
	series := `sluice_reload_failures_total{reason="` + reason + `"}`
	var before, after int
	_, _ = fmt.Sscan(g.metric(series), &before)
	g.write(config)
	err := g.admin.Reload(true)
	if err == nil || !strings.Contains(err.Error(), message) {
		g.t.Errorf("%s: refused with %v, want %q", reason, err, message)
	}
	if r := g.status().Reload; r == nil || r.Reason != reason || r.Applied || !strings.Contains(r.Error, message) {
		g.t.Errorf("%s: status %+v", reason, r)
	}
	if _, _ = fmt.Sscan(g.metric(series), &after); after != before+1 {
		g.t.Errorf("%s: counted %d, was %d\n%s", reason, after, before, g.metrics())
	}
	if !strings.Contains(g.log.String(), "reason="+reason+" ") {
		g.t.Errorf("%s is not in the log:\n%s", reason, g.log)
	}
	answers(g.t, g.addr)
}

// What a host keeps the gateway from is told with what to do, counted by reason and shown, while the old configuration serves on.
func TestReloadFailuresHaveReasons(t *testing.T) {
	g := run(t, hosted(`http2: { bind: "127.0.0.1:0" }`, ""))
	if got := g.metric(`sluice_reload_failures_total{reason="bind_in_use"}`); got != "0" {
		t.Errorf("before anything failed %q are counted", got)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	secured := func(cert string) string {
		return hosted(`https: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: `+cert+`, key: `+cert+` }] } }`, "")
	}
	for _, f := range []struct{ reason, config, message string }{
		{"config", hosted("", "rutes: []"), "rutes"},
		{"certificate", secured("none.pem"), "no such file or directory: a relative path begins at the folder of the configuration file"},
		{"certificate", secured("sluice.yaml"), "sluice.yaml"},
		{"certificate", hosted("", `upstreams: { u: { endpoints: ["127.0.0.1:1"], tls: { ca: none.pem } } }`), "a relative path begins at the folder"},
		{"bind_in_use", hosted(`other: { bind: "`+taken.Addr().String()+`" }`, ""), "see ss -ltnp sport = :"},
		{"bind_permission", hosted(`other: { bind: "unix:/sys/sluice.sock" }`, ""), "the folder must be one that the gateway may write to"},
		{"bind_address", hosted(`other: { bind: "192.0.2.1:1" }`, ""), "no device of this host has the address yet"},
		{"bind", hosted(`other: { bind: "unix:FOLDER/none/s.sock" }`, ""), "no such file or directory"},
		{"bind", hosted(`other: { bind: "unix:FOLDER/sluice.yaml" }`, ""), "a file that is no socket is in the way: move it"},
		{"socket_option", hosted(`other: { bind: "127.0.0.1:0", socket: { congestion: nosuch, required: true } }`, ""), "modprobe tcp_nosuch"},
		{"processors", hosted("", "tuning: { cpus: 1023 }"), "this host has no processor 1023"},
		{"log", hosted("", "access_log: FOLDER/none/access.log"), "the folder must be there"},
	} {
		g.refused(f.reason, f.config, f.message)
	}
}

// A reload for which there are too few descriptors says so.
func TestReloadWithoutDescriptors(t *testing.T) {
	g := run(t, hosted("", "tuning: { raise_file_limit: false }"))
	many := strings.Repeat(`"127.0.0.1:0", `, 100)
	g.write(hosted(`many: { bind: [`+many+`] }`, "tuning: { raise_file_limit: false }"))
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(len(open) + 40), Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = g.admin.Reload(true)
	if again := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); again != nil {
		t.Fatal(again)
	}
	if err == nil || !strings.Contains(err.Error(), "raise LimitNOFILE=") {
		t.Errorf("refused with %v", err)
	}
	if r, n := g.status().Reload, g.metric(`sluice_reload_failures_total{reason="descriptors"}`); r == nil || r.Reason != "descriptors" || n != "1" {
		t.Errorf("status %+v, counted %q", r, n)
	}
}

// An error has the reason that is closest to its cause, and reads as it would without.
func TestReasonOf(t *testing.T) {
	f := func(err error, want failureReason) {
		t.Helper()
		if got := reasonOf(fmt.Errorf("cannot: %w", err)); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	f(errors.New("x"), failedOther)
	f(because(failedConfig, errors.New("x")), failedConfig)
	f(because(failedConfig, because(failedLog, errors.New("x"))), failedLog)
	f(because(failedConfig, fmt.Errorf("a.pem: %w", compile.ErrCertificate)), failedCertificate)
	f(because(failedConfig, fmt.Errorf("a.pem: %w", unix.EMFILE)), failedDescriptors)
	f(becauseBind(&os.SyscallError{Syscall: "bind", Err: unix.EACCES}), failedBindPermission)
	f(becauseBind(unix.EROFS), failedBindPermission)
	f(becauseBind(unix.EADDRINUSE), failedBindInUse)
	f(becauseBind(unix.EADDRNOTAVAIL), failedBindAddress)
	f(becauseBind(unix.ENFILE), failedDescriptors)
	f(becauseBind(fs.ErrNotExist), failedBind)
	f(becauseBind(tuning.Refusal{Option: "fast_open", Err: unix.EPERM}), failedSocketOption)
	if because(failedLog, nil) != nil || becauseBind(nil) != nil {
		t.Error("nothing failed, for a reason")
	}
	if got := because(failedLog, fs.ErrNotExist).Error(); got != fs.ErrNotExist.Error() {
		t.Errorf("reads %q", got)
	}
	seen := map[string]bool{}
	for r := range failureReasons {
		if name := r.String(); name == "" || seen[name] || failureReasonNamed(name) != r {
			t.Errorf("reason %d is called %q", r, name)
		}
		seen[r.String()] = true
	}
	if failureReasonNamed("of a later version") != failedOther {
		t.Error("a reason that is not known is one")
	}
}

// leave makes the file of a unix socket on which nobody listens any more.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

// The files of unix sockets that a process has left that was killed are replaced, which is told and counted.
func TestStaleSocketsAreTold(t *testing.T) {
	folder, err := os.MkdirTemp("", "sluice")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "http.sock")
	leave(t, path)
	g := run(t, hosted(`unix: { bind: "unix:`+path+`" }`, ""))
	want := func(of, n, path string) {
		t.Helper()
		if got := g.metric(`sluice_stale_sockets_total{of="` + of + `"}`); got != n {
			t.Errorf("%s: counted %q, want %s", of, got, n)
		}
		told := strings.Count(g.log.String(), `level=WARN msg="a unix socket was replaced that a process has left without ending in order: see in its log, journalctl -u sluice, why it was killed or crashed" path=`+path+"\n")
		if fmt.Sprint(told) != n {
			t.Errorf("%s: told %d times, want %s:\n%s", of, told, n, g.log)
		}
	}
	other := filepath.Join(folder, "admin2.sock")
	want("listener", "1", path)
	want("admin", "0", other)
	leave(t, other)
	text, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	next := strings.Replace(string(text), strings.TrimPrefix(g.admin.Address, "unix:"), other, 1)
	if err := os.WriteFile(g.config, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	g.admin.Address = "unix:" + other
	g.eventually("the admin API is there", func() bool { return g.admin.Ready() == nil })
	want("listener", "1", path)
	want("admin", "1", other)
}
