package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/config"
)

// A loop that is held up takes the gateway out of service until it goes on: whoever watches /readyz sends its clients elsewhere.
func TestAStalledLoopIsNotReady(t *testing.T) {
	folder, err := os.MkdirTemp("", "sluice") // t.TempDir's names are too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	socket := "unix:" + filepath.Join(folder, "admin.sock")
	cfg, problems := config.Parse("sluice.yaml", []byte(`
loops: 2
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "*", respond: { status: 204 } }]
admin: "`+socket+`"
`), config.Env{})
	if cfg == nil {
		t.Fatal(problems)
	}
	log := &journal{}
	s := &Server{options: Options{Version: "test", Stderr: log}}
	defer s.close()
	if err := s.start(cfg); err != nil {
		t.Fatal(err)
	}
	s.admin.start(s.log)
	client := admin.Client{Address: socket}
	eventually := func(what string, ok func(err error) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			err := client.Ready()
			if ok(err) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it never came to pass: %s; the last answer is %v\n%s", what, err, log)
			}
		}
	}
	eventually("it is ready", func(err error) bool { return err == nil })
	held, release := make(chan struct{}), make(chan struct{})
	s.loops[1].Post(func() {
		close(held)
		<-release
	})
	<-held
	defer func() { // before close, which waits for the loop
		select {
		case <-release:
		default:
			close(release)
		}
	}()
	eventually("the stall is told", func(err error) bool {
		return err != nil && strings.Contains(err.Error(), "1 event loops are held up")
	})
	close(release)
	eventually("it is ready again", func(err error) bool { return err == nil })
	if n := s.watchdog.Stalls(); n != 1 {
		t.Errorf("%d stalls are counted", n)
	}
}
