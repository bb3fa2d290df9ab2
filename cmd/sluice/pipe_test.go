package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// TestReadersOfOutputGo: who reads the standard output or the standard error may go, as a container's log driver or journald does when it is
// restarted; the gateway serves on, and ends in good order.
func TestReadersOfOutputGo(t *testing.T) {
	folder, err := os.MkdirTemp("", "sluice") // t.TempDir's names are too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	config, api := filepath.Join(folder, "sluice.yaml"), admin.Client{Address: "unix:" + filepath.Join(folder, "admin.sock")}
	text := "admin: { bind: \"" + api.Address + "\" }\naccess_log: stdout\nlisteners: { http: { bind: \"127.0.0.1:0\" } }\n" +
		"routes: [{ match: \"/*\", respond: { status: 204 } }]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := exec.Command("sluice", "run", "-c", config)
	readOut, writeOut := pipe(t)
	readErr, writeErr := pipe(t)
	gateway.Stdout, gateway.Stderr = writeOut, writeErr
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = writeOut.Close(), writeErr.Close()
	ended := make(chan error, 1)
	go func() { ended <- gateway.Wait() }()
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			select {
			case err := <-ended:
				t.Fatalf("it has ended before %s: %v", what, err)
			default:
			}
			if time.Now().After(deadline) {
				_ = gateway.Process.Kill()
				t.Fatalf("it never came to %s", what)
			}
		}
	}
	await("the start", func() bool { return api.Ready() == nil })
	_, _ = readOut.Close(), readErr.Close()
	st, err := api.Status()
	if err != nil {
		t.Fatal(err)
	}
	await("a line of the access log that nobody takes", func() bool {
		if res, err := http.Get("http://" + st.Listeners[0].Binds[0] + "/"); err == nil {
			_ = res.Body.Close()
		}
		text, err := api.Metrics()
		return err == nil && !strings.Contains(string(text), "\nsluice_access_log_errors_total 0\n")
	})
	await("a reload, which is told to the error log", func() bool { return api.Reload(true) == nil })
	if err := gateway.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = gateway.Process.Kill()
		t.Error("it does not end")
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}
