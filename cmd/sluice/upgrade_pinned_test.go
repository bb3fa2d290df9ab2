package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/tuning"
)

// testPinned runs a gateway that pins itself: from the start, by reloads, and over upgrades, in which a process begins where the one
// before was pinned and must come out of that again.
func testPinned(t *testing.T, binaries [2]string) {
	all := tuning.CPUs(tuning.AllowedCPUs())
	if len(all) < 2 {
		t.Skip("there is one processor")
	}
	first, second, every := all[:1].String(), all[1:2].String(), all.String()
	s := layOut(t, binaries, "2s")
	base, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write := func(list string) {
		text := strings.Replace(string(base), "loops: 2", "loops: auto", 1)
		if list != "" {
			text += "tuning: { cpus: \"" + list + "\" }\n"
		}
		s.put("sluice.yaml", text, 0o600)
	}
	// What cannot be had ends the start, with its place.
	line := strings.Count(string(base), "\n") + 1
	write("1023")
	out, err := exec.Command(s.link, "run", "-c", s.config).CombinedOutput()
	want := fmt.Sprintf("sluice.yaml:%d:17: cannot pin to cpus \"1023\": this host has no processor 1023", line)
	if err == nil || !strings.Contains(string(out), want) {
		t.Fatalf("a processor that is not there: %v\n%s\nwant %s", err, out, want)
	}

	write(first)
	s.start(exec.Command(s.link, "run", "-c", s.config))
	f := func(what, list string, loops int) {
		t.Helper()
		st := s.status()
		if len(st.Loops) != loops || st.Tuning.CPUList != list {
			t.Errorf("%s: %d loops on %q, want %d on %q", what, len(st.Loops), st.Tuning.CPUList, loops, list)
		}
		s.exchanges() // threads that are made by work are made there, too
		if err := threadsOn(st.PID, list); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("start", first, 1)
	reload := func(list string) error {
		write(list)
		return s.admin.Reload(true)
	}
	for _, to := range []string{second, every, first} {
		if err := reload(to); err != nil {
			t.Fatal(err)
		}
		f("reload", to, 1)
	}
	if err := reload("0-1023"); err == nil || !strings.Contains(err.Error(), "this host has no processor") {
		t.Errorf("a reload that cannot be: %v", err)
	}
	f("a refused reload", first, 1)
	if err := reload(""); err != nil {
		t.Fatal(err)
	}
	f("a reload without the key", every, 1)
	if !strings.Contains(s.log(), "the number of loops follows the processors with the next start or upgrade") {
		t.Errorf("the log does not say that the loops stay:\n%s", s.log())
	}
	if err := reload(first); err != nil {
		t.Fatal(err)
	}

	// What is started by a pinned process begins there.
	s.upgraded("command")
	f("an upgrade that changes nothing", first, 1)
	write(second)
	s.upgraded("signal")
	f("an upgrade to another processor", second, 1)
	write(every)
	s.upgraded("command")
	f("an upgrade that widens", every, len(all))
	write(second)
	s.upgraded("command")
	write("")
	s.upgraded("command")
	f("an upgrade without the key", every, len(all))
	// Nothing is left of it: the process has its own word again.
	if err := reload(second); err != nil {
		t.Fatal(err)
	}
	f("a reload after upgrades", second, len(all))
	write("1023")
	if told, err := s.upgrade("--wait"); err == nil || !strings.Contains(told, "this host has no processor 1023") {
		t.Errorf("an upgrade that cannot be: %q, %v", told, err)
	}
	f("a refused upgrade", second, len(all))
}

// exchanges makes some, over new connections.
func (s *site) exchanges() {
	s.t.Helper()
	for range 20 {
		c := &upgradeClient{name: "fresh", addr: s.addr("http"), once: fresh}
		if err := c.once(c); err != nil {
			s.t.Fatal(err)
		}
	}
}

// threadsOn reads what the kernel says of every thread of a process.
func threadsOn(pid int, list string) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 2 {
		return fmt.Errorf("%d threads: %w", len(tasks), err)
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil { // it has ended
			continue
		}
		if !strings.Contains(string(text), "\nCpus_allowed_list:\t"+list+"\n") {
			_, got, _ := strings.Cut(string(text), "\nCpus_allowed_list:\t")
			got, _, _ = strings.Cut(got, "\n")
			return fmt.Errorf("%s is on %s, want %s", name, got, list)
		}
	}
	return nil
}
