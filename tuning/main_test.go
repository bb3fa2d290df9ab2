package tuning

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the reports of the recorded hosts anew")

// recorded gives the files of a host in testdata.
func recorded(t *testing.T, name string) fstest.MapFS {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, f := range a.Files {
		files[f.Name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
	}
	return files
}

// laid puts files into a folder of their own and opens it.
func laid(t *testing.T, files fstest.MapFS) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, f := range files {
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func report(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if n, err := r.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d bytes: %v", n, b.Len(), err)
	}
	return b.String()
}

func hostOf(t *testing.T, name string) *Host {
	h := &Host{Files: recorded(t, name)}
	switch name {
	case "good":
		h.Device = func(string) (Device, error) { return Device{RxRing: 2048, RxRingMost: 4096, GRO: true, TSO: true}, nil }
	case "bad":
		h.Device = func(string) (Device, error) { return Device{RxRing: 256, RxRingMost: 4096, TSO: true}, nil }
	}
	return h
}

// TestReport holds the reports of hosts against what they were when somebody last read them. One, virtual, is recorded: its files are as a kernel
// wrote them. The others are made up, so that every item is seen good, bad and missing.
func TestReport(t *testing.T) {
	for _, name := range []string{"good", "bad", "container", "virtual"} {
		r := hostOf(t, name).Examine()
		got := report(t, r)
		golden := filepath.Join("testdata", name+".report")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
		switch bad := r.Bad(); {
		case name == "good" && bad > 0:
			t.Errorf("%d items of the good host are bad", bad)
		case name == "bad" && bad < len(r.Items):
			t.Errorf("%d of %d items of the bad host are bad", bad, len(r.Items))
		}
	}
	if n := len(sysctls) + len(hardware); n < 30 {
		t.Errorf("only %d items", n)
	}
}

// TestEntries holds each entry of the tables to what a report needs of it.
func TestEntries(t *testing.T) {
	seen := map[string]bool{}
	for _, table := range [][]entry{sysctls[:], hardware[:]} {
		for _, e := range table {
			if seen[e.id] || e.judge == nil || !strings.HasSuffix(e.why, ")") || !strings.Contains(e.why, "(") || strings.Contains(e.why, "\n") {
				t.Errorf("%s: twice, without a judge, or its reason has no source: %s", e.id, e.why)
			}
			seen[e.id] = true
		}
	}
	text, err := json.Marshal(Finding{ID: "x", State: Bad, Severity: High})
	if want := `{"id":"x","state":"bad","severity":"high","current":"","wanted":"","why":""}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}

// TestHostileFiles looks at hosts whose files are cut off, too long, binary, of another kind or lead elsewhere: items
// become unknown, nothing panics, waits or gets out.
func TestHostileFiles(t *testing.T) {
	texts := []string{"", "\n", "-1", "x", "0x10", "1 2", "1\n2", strings.Repeat("9", 100), strings.Repeat("9", maxFileBytes+1), "\x00\x01", "\x1b[31m1",
		"é", "0-", "-", "0-9999999999", "a-b,c", "[", "]", "[]", ":::", "0::", "4:memory:/../../../../etc", "TcpExt:", "Max open files", "18446744073709551616"}
	good := recorded(t, "good")
	for _, text := range texts {
		files := fstest.MapFS{}
		for name := range good {
			files[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		}
		r := (&Host{Files: files}).Examine()
		for _, f := range r.Items {
			if len(f.Current) > 500 || strings.ContainsAny(f.Current, "\x1b\x00\n") {
				t.Errorf("%q: %s is shown as %q", text, f.ID, f.Current)
			}
			if f.Set != "" && !isValue(f.Set) {
				t.Errorf("%q: %s would be set to %q", text, f.ID, f.Set)
			}
		}
	}
	// One file at a time, cut off at each byte.
	for name, f := range good {
		for n := range f.Data {
			cut := fstest.MapFS{}
			for other := range good {
				cut[other] = good[other]
			}
			cut[name] = &fstest.MapFile{Data: f.Data[:n], Mode: 0o644}
			(&Host{Files: cut}).Examine()
			if n > 64 {
				break
			}
		}
	}
}

// TestPipesAreNotOpened puts a pipe in the place of a sysctl: to open it would wait for a writer.
func TestPipesAreNotOpened(t *testing.T) {
	files := recorded(t, "good")
	delete(files, "proc/sys/net/core/somaxconn")
	root := laid(t, files)
	pipe := filepath.Join(root.Name(), "proc/sys/net/core/somaxconn")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan *Report)
	go func() { done <- (&Host{Files: root.FS()}).Examine() }()
	select {
	case r := <-done:
		for _, f := range r.Items {
			if f.ID == "net.core.somaxconn" && f.State != Unknown {
				t.Errorf("a pipe is read: %+v", f)
			}
		}
	case <-time.After(10 * time.Second):
		if f, err := os.OpenFile(pipe, os.O_WRONLY, 0); err == nil {
			_ = f.Close()
		}
		t.Fatal("it waits for somebody to write")
	}
}

// TestRootIsNotLeft makes a sysctl a link to a file outside of the root: neither read nor written.
func TestRootIsNotLeft(t *testing.T) {
	root := laid(t, recorded(t, "bad"))
	outside := filepath.Join(t.TempDir(), "somaxconn")
	if err := os.WriteFile(outside, []byte("128\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root.Name(), "proc/sys/net/core/somaxconn")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	a := &Applier{Root: root, File: DefaultFile}
	if _, err := a.Apply((&Host{Files: root.FS()}).Examine()); err != nil {
		t.Fatal(err)
	}
	if err := a.set("net.core.somaxconn", "1"); err == nil {
		t.Error("a link out of the root is followed")
	}
	if text, _ := os.ReadFile(outside); string(text) != "128\n" {
		t.Errorf("the file outside holds %q", text)
	}
}

func TestMemoryAndQuota(t *testing.T) {
	f := func(name string, memory uint64, from string, quota float64) {
		t.Helper()
		h := hostOf(t, name)
		if m, w := h.Memory(); m != memory || w != from {
			t.Errorf("%s: %d by %s, want %d by %s", name, m, w, memory, from)
		}
		if q := h.CPUQuota(); q != quota {
			t.Errorf("%s: quota %v, want %v", name, q, quota)
		}
	}
	for text, want := range map[string]int{"max 100000": 0, "200000 100000": 2, "210000 100000": 3, "50000 100000": 2, "99999999999999 1": maxCPUs, "0 100000": 0} {
		files := recorded(t, "good")
		files["sys/fs/cgroup/cpu.max"] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		if n := (&Host{Files: files}).QuotaCPUs(); n != want {
			t.Errorf("%s: %d processors, want %d", text, n, want)
		}
	}
	f("good", 8<<30, "cgroup", 0)
	f("bad", 512<<20, "cgroup", 1.5)
	f("container", 256<<20, "cgroup", 0.5)
	f("virtual", 24_684_092<<10, "host", 0) // cgroup v1, whose "no limit" is a number of its own
	if used, limit, ok := hostOf(t, "bad").GroupMemory(); !ok || used != 500_000_000 || limit != 512<<20 {
		t.Errorf("cgroup: %d of %d, %v", used, limit, ok)
	}
	if used, limit, ok := hostOf(t, "good").GroupMemory(); !ok || used != 1<<30 || limit != 8<<30 {
		t.Errorf("cgroup: %d of %d, %v", used, limit, ok)
	}
	host := recorded(t, "good")
	delete(host, "sys/fs/cgroup/system.slice/memory.max")
	if m, w := (&Host{Files: host}).Memory(); m != 16<<30 || w != "host" {
		t.Errorf("%d by %s", m, w)
	}
}
