package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipes: a configuration may come through a pipe, however late; a FIFO that nobody writes to holds up neither a start nor a reload,
// wherever it is named.
func TestPipes(t *testing.T) {
	const whole = "listeners: { a: { bind: \":80\" } }\nroutes: [{ match: /*, respond: {} }]\n"
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	go func() {
		time.Sleep(50 * time.Millisecond) // after whoever reads has begun to, as a rule
		_, _ = io.WriteString(w, whole)
		_ = w.Close()
	}()
	if cfg, problems := Load(fmt.Sprint("/dev/fd/", r.Fd())); cfg == nil {
		t.Errorf("through a pipe: %s", problems)
	}
	folder := t.TempDir()
	fifo, file := filepath.Join(folder, "fifo"), filepath.Join(folder, "sluice.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"included":       "include: " + fifo + "\n" + whole,
		"of a secret":    strings.Replace(whole, "respond: {}", "respond: { headers: { X: \"file:"+fifo+"\" } }", 1),
		"of consumers":   "consumers_file: " + fifo + "\n" + whole,
		"of networks":    strings.Replace(whole, "respond", "use: [{ ip: { allow: \"file:"+fifo+"\" } }], respond", 1),
		"the whole file": "",
	} {
		path := file
		if text == "" {
			path = fifo
		} else if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = Load(path)
		}()
		select {
		case <-read:
		case <-time.After(20 * time.Second):
			t.Fatalf("a FIFO %s holds up the reader", what)
		}
	}
}
