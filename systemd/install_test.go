package systemd_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// command runs a program and gives its output, or ends the test.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tryCommand(env []string, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// need skips a test without one of the programs that it runs.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not there: make test-deps installs it", p)
		}
	}
}

// standIn is a program in the place of the gateway's binary, which takes long to link.
func standIn(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sluice")
	if err := os.WriteFile(name, []byte("#!/bin/sh\necho \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// installed lists the files below a folder with their modes.
func installed(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		files = append(files, fmt.Sprintf("%o /%s", i.Mode().Perm(), rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(a[4:], b[4:]) })
	return files
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestInstall(t *testing.T) {
	root := t.TempDir()
	env := []string{"DESTDIR=" + root, "PREFIX=/opt/gateway"}
	command(t, env, "./install", standIn(t))
	config := "640 /etc/sluice/sluice.yaml"
	same(t, "install", installed(t, root), []string{
		config,
		"755 /opt/gateway/bin/sluice",
		"644 /opt/gateway/lib/systemd/system/sluice.service",
		"644 /opt/gateway/lib/systemd/system/sluice.service.d/10-privileged-ports.conf",
		"644 /opt/gateway/lib/systemd/system/sluice.socket",
		"644 /opt/gateway/lib/sysusers.d/sluice.conf",
		"644 /opt/gateway/lib/tmpfiles.d/sluice.conf",
		"644 /opt/gateway/share/bash-completion/completions/sluice",
		"644 /opt/gateway/share/doc/sluice/CONFIGURATION.md",
		"644 /opt/gateway/share/fish/vendor_completions.d/sluice.fish",
		"644 /opt/gateway/share/man/man8/sluice.8",
		"644 /opt/gateway/share/sluice/dropins/affinity.conf",
		"644 /opt/gateway/share/sluice/dropins/reload-without-admin.conf",
		"644 /opt/gateway/share/sluice/logrotate",
		"644 /opt/gateway/share/sluice/sluice.yaml",
		"644 /opt/gateway/share/zsh/site-functions/_sluice",
	})
	for name, want := range map[string]string{"man/man8/sluice.8": "man\n", "zsh/site-functions/_sluice": "completion zsh\n"} {
		if got := read(t, filepath.Join(root, "opt/gateway/share", name)); got != want {
			t.Errorf("%s is not what the binary prints: %q", name, got)
		}
	}
	for _, name := range []string{"lib/systemd/system/sluice.service", "share/sluice/dropins/reload-without-admin.conf"} {
		unit := read(t, filepath.Join(root, "opt/gateway", name))
		if strings.Contains(unit, "/usr/bin/sluice") || !strings.Contains(unit, "/opt/gateway/bin/sluice") {
			t.Errorf("%s does not run what is installed:\n%s", name, unit)
		}
	}

	// Once more, over the operator's configuration.
	own := filepath.Join(root, "etc/sluice/sluice.yaml")
	if err := os.WriteFile(own, []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	command(t, env, "./install", standIn(t))
	command(t, env, "./install", "-remove")
	same(t, "install -remove", installed(t, root), []string{config})
	if read(t, own) != "mine" {
		t.Error("the configuration was overwritten")
	}
	if left, err := os.ReadDir(filepath.Join(root, "opt/gateway/share/sluice")); err == nil { // the others are folders of everybody
		t.Errorf("left behind: %v", left)
	}
}

func TestInstallRefuses(t *testing.T) {
	root := t.TempDir()
	for _, prefix := range []string{"usr", "/a b", "/a|b"} {
		if out, err := tryCommand([]string{"DESTDIR=" + root, "PREFIX=" + prefix}, "./install", standIn(t)); err == nil {
			t.Errorf("PREFIX=%q is accepted: %s", prefix, out)
		}
	}
	same(t, "installed", installed(t, root), nil)
}

// make hands on what it is given.
func TestMakeInstalls(t *testing.T) {
	need(t, "make")
	for target, want := range map[string]string{
		"install":   `DESTDIR="/d" PREFIX="/p" systemd/install bin/sluice`,
		"uninstall": `DESTDIR="/d" PREFIX="/p" systemd/install -remove`,
		"deb":       `systemd/deb/build bin/sluice`,
	} {
		if out := command(t, nil, "make", "-n", "-C", "..", target, "DESTDIR=/d", "PREFIX=/p"); !strings.Contains(out, want) {
			t.Errorf("make %s runs\n%s\nwant %s", target, out, want)
		}
	}
}

// build makes a package and gives its file.
func build(t *testing.T, version string) string {
	t.Helper()
	need(t, "dpkg", "dpkg-deb")
	out := command(t, []string{"SOURCE_DATE_EPOCH=1700000000"}, "deb/build", standIn(t), version, t.TempDir())
	return strings.TrimSpace(out)
}

func TestPackage(t *testing.T) {
	file := build(t, "v1.2.3-4-gabcdef")
	root := t.TempDir()
	command(t, nil, "dpkg-deb", "-x", file, root)
	same(t, "unpacked", installed(t, root), []string{
		"644 /etc/logrotate.d/sluice",
		"755 /usr/bin/sluice",
		"644 /usr/lib/systemd/system/sluice.service",
		"644 /usr/lib/systemd/system/sluice.service.d/10-privileged-ports.conf",
		"644 /usr/lib/systemd/system/sluice.socket",
		"644 /usr/lib/sysusers.d/sluice.conf",
		"644 /usr/lib/tmpfiles.d/sluice.conf",
		"644 /usr/share/bash-completion/completions/sluice",
		"644 /usr/share/doc/sluice/CONFIGURATION.md",
		"644 /usr/share/fish/vendor_completions.d/sluice.fish",
		"644 /usr/share/man/man8/sluice.8",
		"644 /usr/share/sluice/dropins/affinity.conf",
		"644 /usr/share/sluice/dropins/reload-without-admin.conf",
		"644 /usr/share/sluice/sluice.yaml",
		"644 /usr/share/zsh/vendor-completions/_sluice",
	})
	for line := range strings.Lines(command(t, nil, "dpkg-deb", "-c", file)) {
		if !strings.Contains(line, " root/root ") {
			t.Errorf("not root's: %s", line)
		}
	}
	if again := build(t, "v1.2.3-4-gabcdef"); read(t, again) != read(t, file) {
		t.Error("the same input gives another package")
	}
	for _, v := range []struct{ given, want string }{
		{"v1.2.3", "1.2.3"}, {"v1.2.3-4-gabcdef", "1.2.3+4+gabcdef"}, {"91aaa4c-dirty", "0~git91aaa4c.dirty"}, {"dev", "0~gitdev"},
	} {
		if got := command(t, nil, "dpkg-deb", "-f", build(t, v.given), "Version"); strings.TrimSpace(got) != v.want {
			t.Errorf("version %s is %s, want %s", v.given, got, v.want)
		}
	}
	if out, err := tryCommand(nil, "deb/build", standIn(t), "v1.0 beta", t.TempDir()); err == nil {
		t.Errorf("a version with a space is accepted: %s", out)
	}
}

// dpkg runs the package's scripts against a root of the test's own.
func TestPackageIsInstalled(t *testing.T) {
	need(t, "dpkg", "systemd-sysusers", "systemd-tmpfiles")
	if os.Geteuid() != 0 {
		t.Skip("only root may make users and folders for them")
	}
	root := t.TempDir()
	for _, folder := range []string{"etc", "var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) {
		t.Helper()
		command(t, nil, "dpkg", append([]string{"--root=" + root, "--log=" + filepath.Join(root, "log"), "--force-script-chrootless",
			"--force-depends"}, args...)...)
	}
	in := func(name string) string { return filepath.Join(root, name) }
	mode := func(name, want string) {
		t.Helper()
		if i, err := os.Stat(in(name)); err != nil || i.Mode().String() != want {
			t.Errorf("%s: %v, %v, want %s", name, i, err, want)
		}
	}

	dpkg("-i", build(t, "v1.0.0"))
	if users := read(t, in("etc/passwd")); !strings.HasPrefix(users, "sluice:") || !strings.Contains(users, ":/usr/sbin/nologin") {
		t.Errorf("users: %s", users)
	}
	mode("etc/sluice", "drwxr-x---")
	mode("etc/sluice/sluice.yaml", "-rw-r-----")
	mode("var/lib/sluice", "drwx------")
	mode("var/log/sluice", "drwxr-x---")
	if read(t, in("etc/sluice/sluice.yaml")) != read(t, "sluice.yaml") {
		t.Error("the first configuration is another")
	}

	// An upgrade, also a removal, keeps what is the operator's; a purge does not.
	if err := os.WriteFile(in("etc/sluice/sluice.yaml"), []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("etc/sluice/site.key"), []byte("key"), 0o640); err != nil {
		t.Fatal(err)
	}
	dpkg("-i", build(t, "v1.1.0"))
	dpkg("-r", "sluice")
	if read(t, in("etc/sluice/sluice.yaml")) != "mine" {
		t.Error("the configuration was overwritten")
	}
	mode("var/lib/sluice", "drwx------")
	dpkg("-P", "sluice")
	for _, gone := range []string{"etc/sluice/sluice.yaml", "var/lib/sluice", "var/log/sluice", "usr/bin/sluice"} {
		if _, err := os.Lstat(in(gone)); err == nil {
			t.Errorf("a purge leaves %s", gone)
		}
	}
	if read(t, in("etc/sluice/site.key")) != "key" {
		t.Error("a purge takes what is not the package's")
	}
}
