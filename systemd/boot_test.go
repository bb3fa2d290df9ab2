package systemd_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// service is the gateway as a service of a machine, and an upstream there.
type service struct {
	*machine
	after    string        // another binary than the one that is installed
	upstream string        // its address
	entered  chan struct{} // a request has reached it
	release  chan struct{} // lets one be answered
}

// The distribution's own systemd runs what make install has put in place, through the life of a service. Each step begins where the
// one before it has ended. The host's systemd, users, network and files have no part in it; it takes root all the same.
func TestSystemdRunsTheGateway(t *testing.T) {
	if os.Geteuid() != 0 {
		unable(t, "only root may map users")
	}
	for _, program := range []string{"/usr/lib/systemd/systemd", "bash", "unshare", "nsenter", "systemctl", "journalctl",
		"systemd-sysusers", "systemd-tmpfiles"} {
		if _, err := exec.LookPath(program); err != nil {
			unable(t, "%v", err)
		}
	}
	folder := t.TempDir()
	s := &service{after: buildGateway(t, folder, "after"), entered: make(chan struct{}), release: make(chan struct{})}
	before := buildGateway(t, folder, "before")
	s.machine = boot(t, before)
	s.serveUpstream()
	for _, step := range []struct {
		name string
		test func(*testing.T, *service)
	}{
		{"Start", testStart},
		{"Hardening", testHardening},
		{"Reload", testReload},
		{"RefusedReload", testRefusedReload},
		{"Upgrade", testUpgrade},
		{"RefusedUpgrade", testRefusedUpgrade},
		{"Restart", testRestart},
		{"Crash", testCrash},
		{"CrashAfterUpgrade", testCrashAfterUpgrade},
		{"Watchdog", testWatchdog},
		{"CrashLoop", testCrashLoop},
		{"Drain", testDrain},
		{"SocketActivation", testSocketActivation},
	} {
		whole := t.Run(step.name, func(t *testing.T) {
			s.t = t
			step.test(t, s)
		})
		s.t = t
		if !whole {
			break
		}
	}
	if t.Failed() {
		t.Logf("journal:\n%s", s.run("journalctl", "--no-pager", "-o", "short-monotonic"))
	}
}

// buildGateway makes a binary with a version in a folder.
func buildGateway(t *testing.T, folder, version string) string {
	t.Helper()
	name := filepath.Join(folder, version)
	command(t, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", name, "../cmd/sluice")
	return name
}

// serveUpstream answers on the machine, requests for /slow when the test lets it.
func (s *service) serveUpstream() {
	l := s.listen("127.0.0.1:0")
	s.upstream = l.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			s.entered <- struct{}{}
			select {
			case <-s.release:
			case <-r.Context().Done(): // the gateway has gone
			}
		}
		fmt.Fprintln(w, "upstream") //nolint:errcheck // the client tells
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	s.t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// configure writes the gateway's configuration: the listeners of sluice.socket, the upstream, and more routes.
func (s *service) configure(routes string) {
	s.put("etc/sluice/sluice.yaml", "listeners:\n  http: { bind: \":80\" }\n  other: { bind: \":443\" }\n"+
		"upstreams:\n  web: { endpoints: [\""+s.upstream+"\"] }\n"+
		"routes:\n  - { match: \"*\", to: web }\n"+routes)
}

// client asks the gateway on a new connection each time, unless it keeps them.
func (s *service) client(keeps bool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: s.dial, DisableKeepAlives: !keeps}}
}

// ask gives the status and body of the gateway's answer.
func ask(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(r.Body)
	return fmt.Sprint(r.StatusCode, " ", strings.TrimSpace(string(body))), err
}

// answers wants an answer, at once.
func (s *service) answers(url, want string) {
	s.t.Helper()
	if got, err := ask(s.client(false), url); err != nil || got != want {
		s.t.Fatalf("%s: %q, %v, want %q", url, got, err, want)
	}
}

// property is what systemd knows of the service.
func (s *service) property(name string) string {
	s.t.Helper()
	return s.run("systemctl", "show", "-P", name, "sluice.service")
}

// is wants properties of the service, given as NAME=VALUE.
func (s *service) is(properties ...string) {
	s.t.Helper()
	for _, p := range properties {
		name, want, _ := strings.Cut(p, "=")
		if got := s.property(name); got != want {
			s.t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
}

// restarts is how often systemd has started the service by itself.
func (s *service) restarts() int {
	s.t.Helper()
	n, err := strconv.Atoi(s.property("NRestarts"))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// signal sends the main process a signal.
func (s *service) signal(name string) {
	s.t.Helper()
	s.run("systemctl", "kill", "-s", name, "--kill-whom=main", "sluice")
}

// nothingLeft finds that the service has ended, with all its processes.
func (s *service) nothingLeft() {
	s.t.Helper()
	s.is("ActiveState=inactive", "Result=success", "MainPID=0", "NFileDescriptorStore=0")
	if names := s.run("sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null; true"); strings.Contains(names, "sluice") {
		s.t.Errorf("processes are left:\n%s", names)
	}
	if out, err := ask(s.client(false), "http://127.0.0.1/"); !errors.Is(err, unix.ECONNREFUSED) {
		s.t.Errorf("after the end: %q, %v, want a refused connection", out, err)
	}
}

// load is clients that ask all the time.
type load struct {
	stop     chan struct{}
	done     sync.WaitGroup
	requests atomic.Int64
	mu       sync.Mutex
	failures []string
}

// begin starts a client on new connections and one that keeps its own.
func (s *service) begin() *load {
	l := &load{stop: make(chan struct{})}
	for _, keeps := range []bool{false, true} {
		l.done.Go(func() {
			client := s.client(keeps)
			defer client.CloseIdleConnections()
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-l.stop:
					return
				case <-pace.C:
				}
				got, err := ask(client, "http://127.0.0.1/")
				l.requests.Add(1)
				if err != nil || got != "200 upstream" {
					l.mu.Lock()
					l.failures = append(l.failures, fmt.Sprintf("kept %v: %q, %v", keeps, got, err))
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

// during waits until at least so many more requests were answered.
func (s *service) during(l *load, n int64) {
	s.t.Helper()
	from := l.requests.Load()
	s.eventually("clients are answered", func() bool { return l.requests.Load() >= from+n })
}

// end stops the clients, none of whom may have noticed anything.
func (s *service) end(l *load) {
	s.t.Helper()
	close(l.stop)
	l.done.Wait()
	if n := len(l.failures); n > 0 {
		s.t.Errorf("%d of %d requests failed, first: %s", n, l.requests.Load(), l.failures[0])
	}
	s.t.Logf("%d requests", l.requests.Load())
}
