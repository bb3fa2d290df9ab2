package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// site is a gateway of real processes, started from a symbolic link to one of two binaries.
type site struct {
	kept     string // the file of a socket that systemd keeps; "": there is none
	t        *testing.T
	folder   string
	binaries [2]string // of version one and two
	link     string    // what the gateway is started from
	config   string
	upstream *httptest.Server
	tls      *cryptotls.Config // of clients
	slow     chan struct{}     // closed: the answer to /slow may end
	logFile  string            // of all processes
	first    *exec.Cmd
	over     chan error // the first process's end
	admin    admin.Client
	seen     map[int]bool // processes that have served
	cut      bool         // a drain is meant to end before what is open does
}

// siteConfig is served on port numbers that the kernel chooses: each process inherits them.
const siteConfig = `
drain: DRAIN
loops: LOOPS
access_log: { to: "FOLDER/access.log" }
listeners:
  http: { bind: ["127.0.0.1:0", "unix:FOLDER/http.sock"], protocols: [h1, h2c] }
  https: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: FOLDER/a.pem, key: FOLDER/a.key }] } }
upstreams: { up: { endpoints: ["UPSTREAM"], pool: { idle_per_loop: 32 } } }
identity: { token: { issuer: gateway } }
routes: [{ match: "/*", to: up }]
admin: { bind: "unix:FOLDER/admin.sock" }
`

// buildVersions builds the two binaries.
func buildVersions(t *testing.T) (binaries [2]string) {
	t.Helper()
	folder := t.TempDir()
	for i, version := range []string{"one", "two"} {
		binaries[i] = filepath.Join(folder, version)
		// As make build does, so that what that has compiled is only linked.
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", binaries[i], ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("cannot build: %v\n%s", err, out)
		}
	}
	return binaries
}

// newSite starts the first of the binaries.
func newSite(t *testing.T, binaries [2]string, drain string, environment ...string) *site {
	t.Helper()
	s := layOut(t, binaries, drain)
	s.start(exec.Command(s.link, "run", "-c", s.config), environment...)
	return s
}

// layOut makes everything that a gateway needs.
func layOut(t *testing.T, binaries [2]string, drain string) *site {
	t.Helper()
	folder, err := os.MkdirTemp("", "upg") // t.TempDir's names are too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, folder: folder, link: filepath.Join(folder, "sluice"), config: filepath.Join(folder, "sluice.yaml"),
		binaries: binaries, over: make(chan error, 1), seen: map[int]bool{}}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	s.point(0)
	s.slow = make(chan struct{})
	s.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			echoHandler(w, r)
			return
		}
		_, _ = io.WriteString(w, "slow ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-s.slow:
			_, _ = io.WriteString(w, "end")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.upstream.Close)
	s.certificate()
	s.write(drain, 2)
	s.admin.Address = "unix:" + filepath.Join(folder, "admin.sock")
	s.logFile = filepath.Join(folder, "log")
	return s
}

// start runs the first process, and waits until it is ready.
func (s *site) start(c *exec.Cmd, environment ...string) {
	t := s.t
	t.Helper()
	s.first = c
	s.first.Env = append(append(os.Environ(), "GOMAXPROCS="), environment...) // of the tests, which the gateway would heed
	log, err := os.OpenFile(s.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the gateway has its own
	s.first.Stdout, s.first.Stderr = log, log
	s.first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.first.Start(); err != nil {
		t.Fatal(err)
	}
	s.seen[s.first.Process.Pid] = true
	go func() { s.over <- s.first.Wait() }()
	t.Cleanup(s.end)
	s.eventually("the gateway is ready", func() bool { return s.admin.Ready() == nil })
}

func (s *site) eventually(what string, done func() bool) {
	s.t.Helper()
	if err := eventually(patience, func() error {
		if done() {
			return nil
		}
		return errors.New("not yet")
	}); err != nil {
		s.t.Fatalf("%s: %v\n%s", what, err, s.log())
	}
}

// point makes the link lead to a binary, at once.
func (s *site) point(to int) {
	s.t.Helper()
	next := s.link + ".next"
	_ = os.Remove(next)
	if err := os.Symlink(s.binaries[to], next); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(next, s.link); err != nil {
		s.t.Fatal(err)
	}
}

// put replaces a file whole.
func (s *site) put(name, text string, mode os.FileMode) string {
	s.t.Helper()
	path := filepath.Join(s.folder, name)
	if err := os.WriteFile(path+".next", []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) write(drain string, loops int) {
	s.t.Helper()
	s.put("sluice.yaml", strings.NewReplacer("DRAIN", drain, "LOOPS", strconv.Itoa(loops), "FOLDER", s.folder,
		"UPSTREAM", strings.TrimPrefix(s.upstream.URL, "http://")).Replace(siteConfig), 0o600)
}

func (s *site) certificate() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.test"}, DNSNames: []string{"a.test"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.put("a.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o600)
	s.put("a.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})), 0o600)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) {
		s.t.Fatal("no certificate")
	}
	s.tls = &cryptotls.Config{RootCAs: pool, ServerName: "a.test"}
}

func (s *site) status() admin.Status {
	s.t.Helper()
	st, err := s.admin.Status()
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.log())
	}
	return st
}

// addr is the TCP address of a listener.
func (s *site) addr(listener string) string {
	s.t.Helper()
	for _, l := range s.status().Listeners {
		if l.Name == listener {
			return l.Binds[0]
		}
	}
	s.t.Fatalf("no listener %q", listener)
	return ""
}

// upgrade runs the command, which finds the gateway by its configuration.
func (s *site) upgrade(args ...string) (told string, err error) {
	return s.upgradeBy(append([]string{"-c", s.config}, args...)...)
}

func (s *site) upgradeBy(args ...string) (told string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.link, append([]string{"upgrade"}, args...)...).CombinedOutput()
	return string(out), err
}

// ctl is what the command says of the gateway.
func (s *site) ctl(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.link, append([]string{"ctl", "--admin", s.admin.Address}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v", out, err)
	}
	return string(out)
}

// upgraded makes an upgrade that must succeed, by the command or by a signal, and waits until the older process is gone.
func (s *site) upgraded(by string) admin.Status {
	s.t.Helper()
	before := s.status()
	if by == "signal" {
		if err := syscall.Kill(before.PID, syscall.SIGUSR2); err != nil {
			s.t.Fatal(err)
		}
	} else if told, err := s.upgrade("--wait"); err != nil || strings.TrimSpace(told) != "upgraded" {
		s.t.Fatalf("%q, %v\n%s", told, err, s.log())
	}
	var now admin.Status
	s.eventually("another process serves", func() bool {
		now = s.status()
		return now.PID != before.PID && now.State == "serving"
	})
	s.seen[now.PID] = true
	s.eventually("the older process has ended", func() bool {
		st := s.status()
		return st.PID == now.PID && st.Older == nil
	})
	return now
}

// end stops what serves, and finds that nothing is left.
func (s *site) end() {
	st, err := s.admin.Status()
	if err == nil {
		_ = syscall.Kill(st.PID, syscall.SIGTERM)
	}
	for pid := range s.seen {
		gone := eventually(patience, func() error {
			// The first is our child, and is reaped by Wait; others are orphans.
			if err := syscall.Kill(pid, 0); err == nil && !zombie(pid) {
				return fmt.Errorf("process %d is left", pid)
			}
			return nil
		})
		if gone != nil {
			s.t.Error(gone)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err := <-s.over; err != nil {
		s.t.Errorf("the first process ended with %v", err)
	}
	if s.kept != "" {
		if err := os.Remove(filepath.Join(s.folder, s.kept)); err != nil {
			s.t.Error(err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(s.folder, "*.sock")); len(files) > 0 {
		s.t.Errorf("files are left: %q", files)
	}
	if text := s.log(); strings.Contains(text, "panic") || !s.cut && strings.Contains(text, "drain ended with") {
		s.t.Errorf("the log says:\n%s", text)
	}
}

func (s *site) log() string {
	text, _ := os.ReadFile(s.logFile)
	return string(text)
}

func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

// resources are what a process holds.
func resources(t *testing.T, pid int) (descriptors int, residentKiB int) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			residentKiB, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return len(fds), residentKiB
}
