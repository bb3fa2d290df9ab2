package tuning

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sysctlsOf reads all sysctls of the table that a root has.
func sysctlsOf(h *Host) map[string]string {
	all := map[string]string{}
	for _, e := range sysctls {
		if text, err := h.sysctl(e.id); err == nil {
			all[e.id] = text
		}
	}
	return all
}

// TestApplyAndRevert applies to a bad host, which then is as wanted, and takes it back, which leaves it as it was.
func TestApplyAndRevert(t *testing.T) {
	root := laid(t, recorded(t, "bad"))
	h := &Host{Files: root.FS()}
	a := &Applier{Root: root, File: DefaultFile}
	was := sysctlsOf(h)

	changes, diff, err := a.Plan(h.Examine())
	if err != nil || len(changes) != len(sysctls) || len(diff) != 2*len(sysctls)+1 {
		t.Fatalf("%d changes, %d lines: %v", len(changes), len(diff), err)
	}
	for _, line := range []string{"+# before: net.core.somaxconn = 128", "+net.core.somaxconn = 16384", "+net.ipv4.tcp_rmem = 4096 87380 6291456", "+net.ipv4.tcp_fastopen = 6"} {
		if !slices.Contains(diff, line) {
			t.Errorf("the diff lacks %q", line)
		}
	}
	if _, err := root.Stat("etc"); err == nil || sysctlsOf(h)["net.core.somaxconn"] != "128" {
		t.Fatal("a plan changes something")
	}

	applied, err := a.Apply(h.Examine())
	if err != nil || len(applied) != len(changes) {
		t.Fatalf("%d changes: %v", len(applied), err)
	}
	for _, c := range applied {
		if c.Err != nil {
			t.Error(c.Err)
		}
	}
	for _, f := range h.Examine().Items {
		if f.Set != "" || f.State == Bad && slices.ContainsFunc(sysctls[:], func(e entry) bool { return e.id == f.ID }) {
			t.Errorf("%s is %s still", f.ID, f.Current)
		}
	}
	// Once more changes nothing, and what was before stays known when something else is applied later.
	if again, err := a.Apply(h.Examine()); err != nil || len(again) != 0 {
		t.Errorf("applied again: %v, %v", again, err)
	}
	if err := a.set("net.core.somaxconn", "256"); err != nil {
		t.Fatal(err)
	}
	if again, err := a.Apply(h.Examine()); err != nil || len(again) != 1 {
		t.Errorf("applied again: %v, %v", again, err)
	}

	changes, err = a.Revert()
	if err != nil || len(changes) != len(sysctls) {
		t.Fatalf("%d changes: %v", len(changes), err)
	}
	for key, value := range sysctlsOf(h) {
		if value != was[key] {
			t.Errorf("%s is %q, was %q", key, value, was[key])
		}
	}
	if _, err := root.Stat(a.name()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	if _, err := a.Revert(); err == nil {
		t.Error("reverted twice")
	}
}

// TestRevertLeavesOthersAlone changes a sysctl after it was applied: it is not taken back.
func TestRevertLeavesOthersAlone(t *testing.T) {
	root := laid(t, recorded(t, "bad"))
	h := &Host{Files: root.FS()}
	a := &Applier{Root: root, File: DefaultFile}
	if _, err := a.Apply(h.Examine()); err != nil {
		t.Fatal(err)
	}
	if err := a.set("vm.swappiness", "1"); err != nil {
		t.Fatal(err)
	}
	changes, err := a.Revert()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if (c.Key == "vm.swappiness") != errors.Is(c.Err, ErrChanged) {
			t.Errorf("%+v", c)
		}
	}
	if now := sysctlsOf(h)["vm.swappiness"]; now != "1" {
		t.Errorf("vm.swappiness is %s", now)
	}
}

// TestApplyPartly has a sysctl that does not take its value, and one that is not there: they are told, the rest is set, and a revert that
// cannot be whole keeps the file.
func TestApplyPartly(t *testing.T) {
	root := laid(t, recorded(t, "bad"))
	h := &Host{Files: root.FS()}
	a := &Applier{Root: root, File: DefaultFile}
	r := h.Examine()
	stubborn := filepath.Join(root.Name(), "proc/sys/vm/swappiness")
	if err := os.Remove(stubborn); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(stubborn, 0o755); err != nil {
		t.Fatal(err)
	}
	changes, err := a.Apply(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if (c.Key == "vm.swappiness") != (c.Err != nil) {
			t.Errorf("%s: %v", c.Key, c.Err)
		}
	}
	if _, err := a.Revert(); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Stat(a.name()); err != nil {
		t.Errorf("the file went although not everything was taken back: %v", err)
	}
	if now := sysctlsOf(h)["net.core.somaxconn"]; now != "128" {
		t.Errorf("net.core.somaxconn is %s", now)
	}
}

// TestForeignFiles refuses to use files that apply has not written, and changes nothing then.
func TestForeignFiles(t *testing.T) {
	good := heading + "\n" + before + "vm.swappiness = 60\nvm.swappiness = 10\n"
	if s, err := parseSettings(strings.TrimSpace(good)); err != nil || s.text() != good {
		t.Fatalf("%q, %v", s.text(), err)
	}
	for _, text := range []string{
		"vm.swappiness = 10\n", "# other\n", heading + "\nvm.swappiness = 10\n", heading + "\n" + before + "vm.swappiness = 60\n",
		heading + "\n" + before + "kernel.core_pattern = |/bin/x\nkernel.core_pattern = 1\n", heading + "\n" + before + "kernel.sysrq = 0\nkernel.sysrq = 1\n",
		heading + "\n" + before + "vm.swappiness = 60\nvm.overcommit_memory = 10\n", heading + "\n" + before + "vm.swappiness = \nvm.swappiness = 10\n",
		heading + "\n" + before + "vm/../../x = 60\nvm/../../x = 10\n", good + good, good + before + "vm.swappiness = 60\nvm.swappiness = 10\n", strings.Repeat(good, 1000), "\x00",
	} {
		root := laid(t, recorded(t, "bad"))
		a := &Applier{Root: root, File: "/etc/x.conf"}
		if err := root.MkdirAll("etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile("etc/x.conf", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		h := &Host{Files: root.FS()}
		was := sysctlsOf(h)
		_, err := a.Apply(h.Examine())
		_, err2 := a.Revert()
		if err == nil || err2 == nil {
			t.Errorf("%.200q is used: %v, %v", text, err, err2)
		}
		if now, _ := root.ReadFile("etc/x.conf"); string(now) != text {
			t.Errorf("%.200q became %.200q", text, now)
		}
		for key, value := range sysctlsOf(h) {
			if value != was[key] {
				t.Errorf("%.200q: %s became %s", text, key, value)
			}
		}
	}
	for _, file := range []string{"", "/", "x.conf", "/etc/x", "/../x.conf"} {
		root := laid(t, recorded(t, "bad"))
		_, err := (&Applier{Root: root, File: file}).Apply((&Host{Files: root.FS()}).Examine())
		if inside := file == "/../x.conf"; (err == nil) != inside { // cleaned: the root's own
			t.Errorf("%q: %v", file, err)
		}
	}
}
