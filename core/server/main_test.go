package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/leak"
	"github.com/sluice-gateway/sluice/systemd"
)

// patience is how long a test waits for what must happen; only a failing test waits so long.
const patience = 20 * time.Second

// TestMain fails the run when a test leaves goroutines or descriptors behind.
func TestMain(m *testing.M) {
	if spec := os.Getenv(endpointVariable); spec != "" {
		os.Exit(beEndpoint(spec))
	}
	if spec := os.Getenv(slowersVariable); spec != "" {
		os.Exit(beSlow(spec))
	}
	if err := allowExtendedConnect(); err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	os.Exit(leak.Check(m.Run))
}

// comesToPass waits until ok, but not for ever.
func comesToPass(ok func() bool) bool {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// eventually waits until ok; what says it in words.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !comesToPass(ok) {
		t.Fatalf("it never came to pass: %s", what)
	}
}

// eventually shows the log besides.
func (g *running) eventually(what string, ok func() bool) {
	g.t.Helper()
	if !comesToPass(ok) {
		g.t.Fatalf("it never came to pass: %s\n%s", what, g.log)
	}
}

// journal is the standard error of a gateway.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// running is a gateway in this process. Signals are the process's: there is but one at a time.
type running struct {
	t      testing.TB
	config string // the file
	addr   string // of the listener named http
	admin  admin.Client
	log    *journal
	folder string
	ended  chan error
	over   bool
}

// run starts a gateway on a configuration, in which FOLDER is a folder of the test's own. The admin API is added.
func run(t testing.TB, config string) *running {
	t.Helper()
	return runIn(t, config, systemd.Environment{})
}

// runIn is run in an environment of systemd's.
func runIn(t testing.TB, config string, env systemd.Environment) *running {
	t.Helper()
	return runWith(t, config, Options{Systemd: env})
}

// runWith is run with options, to which what every test has is added.
func runWith(t testing.TB, config string, o Options) *running {
	t.Helper()
	folder, err := os.MkdirTemp("", "sluice") // t.TempDir's names are too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	g := &running{t: t, folder: folder, config: filepath.Join(folder, "sluice.yaml"), log: &journal{}, ended: make(chan error, 1)}
	t.Cleanup(func() {
		g.stop()
		_ = os.RemoveAll(folder)
	})
	g.write(config)
	g.admin.Address = "unix:" + filepath.Join(folder, "admin.sock")
	o.ConfigFile, o.Version, o.Stderr = g.config, "test", g.log
	go func() { g.ended <- Run(o) }()
	for deadline := time.Now().Add(patience); g.admin.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-g.ended:
			g.over = true
			t.Fatalf("the gateway did not start: %v\n%s", err, g.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway is not ready\n%s", g.log)
		}
	}
	for _, l := range g.status().Listeners {
		if l.Name == "http" {
			g.addr = l.Binds[0]
		}
	}
	return g
}

// write replaces the configuration file.
func (g *running) write(config string) {
	g.t.Helper()
	config = strings.ReplaceAll(config, "FOLDER", g.folder) +
		"\nadmin: { bind: \"unix:" + filepath.Join(g.folder, "admin.sock") + "\" }\n"
	next := g.config + ".next"
	if err := os.WriteFile(next, []byte(config), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(next, g.config); err != nil {
		g.t.Fatal(err)
	}
}

func (g *running) status() admin.Status {
	g.t.Helper()
	s, err := g.admin.Status()
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// stop ends the gateway as an operator does, and waits until it has drained.
func (g *running) stop() {
	g.t.Helper()
	if g.over {
		return
	}
	g.over = true
	select {
	case err := <-g.ended: // nobody would take the signal
		g.t.Errorf("the gateway ended by itself: %v\n%s", err, g.log)
		return
	default:
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	select {
	case err := <-g.ended:
		if err != nil {
			g.t.Errorf("the gateway ended with %v\n%s", err, g.log)
		}
	case <-time.After(2 * patience):
		g.t.Fatalf("the gateway does not end\n%s", g.log)
	}
}
