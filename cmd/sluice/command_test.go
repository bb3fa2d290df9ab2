package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-gateway/sluice/core/admin"
)

// execute runs a command line and gives what it prints.
func execute(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

// TestDefinitions holds each command to what help, manual and completions need of it.
func TestDefinitions(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range commands() {
		if seen[k.name] || k.run == nil || k.help == "" || strings.HasSuffix(k.help, ".") {
			t.Errorf("%s is there twice, does nothing, or its help is no phrase: %q", k.name, k.help)
		}
		seen[k.name] = true
		for _, o := range k.options {
			if o.help == "" || o.value != strings.TrimSpace(o.value) {
				t.Errorf("%s %s: %+v", k.name, o.dashed(), o)
			}
		}
	}
	if names := admin.Subcommands(); len(names) < 10 {
		t.Errorf("ctl has %d commands", len(names))
	}
}

// TestCommandLines reads command lines: options anywhere, each once unless it may be given more often.
func TestCommandLines(t *testing.T) {
	probe := command{name: "probe", args: "[WORD]...", help: "show what was read", options: []option{
		{name: "c", value: "FILE", preset: "a"}, {name: "wait"}, {name: "H", value: "LINE", many: true}}}
	f := func(line, want string) {
		t.Helper()
		var got string
		probe.run = func(c *invocation) int {
			got = strings.Join(append([]string{c.text("c"), c.text("wait"), strings.Join(c.values["H"], "+")}, c.words...), " ")
			return exitOK
		}
		var out, errs bytes.Buffer
		code := probe.invoke(&invocation{args: strings.Fields(line), stdout: &out, stderr: &errs})
		if code == exitUsage {
			got, _, _ = strings.Cut(errs.String(), "\n")
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
	f("", "a  ")
	f("x -c b y", "b   x y")
	f("--wait -H 1 x -H 2", "a true 1+2 x")
	f("-c=b -- -c", "b   -c")
	f("-c b -c d", `sluice probe: invalid value "d" for flag -c: it is given twice`)
	f("-c", "sluice probe: flag needs an argument: -c")
	f("--no", "sluice probe: flag provided but not defined: -no")
	if code, out, _ := execute("tune", "-h"); code != exitOK || !strings.Contains(out, "--dry-run") {
		t.Errorf("tune -h: %d\n%s", code, out)
	}
	for _, args := range [][]string{{"version", "x"}, {"run", "x"}, {"hash"}, {"hash", "key", "--prefix", "x"}, {"hash", "new-key", "--prefix", "_"}, {"hash", "new-key", "--prefix", "a b"}, {"explain"}, {"completion", "csh"}, {"tune", "--revert", "--apply"}} {
		if code, out, errs := execute(args...); code != exitUsage || out != "" || errs == "" {
			t.Errorf("%q: %d, %q, %q", args, code, out, errs)
		}
	}
}

// TestCtlOptions holds the options of ctl in the table against those that it reads.
func TestCtlOptions(t *testing.T) {
	for _, k := range commands() {
		if k.name != "ctl" {
			continue
		}
		for _, o := range k.options {
			args := []string{"ctl", o.dashed()}
			if o.value != "" {
				args = append(args, "unix:/nowhere")
			}
			if _, _, errs := execute(append(args, "no-such-command")...); !strings.Contains(errs, `unknown command "no-such-command"`) {
				t.Errorf("%s: %s", o.dashed(), errs)
			}
		}
		for _, w := range k.wordNames() {
			if _, _, errs := execute("ctl", "--admin", "unix:/nowhere", w); strings.Contains(errs, "unknown command") {
				t.Errorf("%s: %s", w, errs)
			}
		}
	}
}

// TestManual renders the manual page without a complaint, and finds every command and option in it.
func TestManual(t *testing.T) {
	_, text, _ := execute("man")
	if !strings.HasPrefix(text, ".TH \"SLUICE\" \"8\"") {
		t.Errorf("it begins with %.60q", text)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !slices.Contains([]string{".TH", ".SH", ".SS", ".TP", ".B"}, strings.Fields(line)[0]) {
			t.Errorf("a line is taken for a request: %q", line)
		}
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("groff is not there")
	}
	cmd := exec.Command("groff", "-man", "-Tascii", "-ww", "-P-cbou", "-rLL=1000n")
	cmd.Stdin = strings.NewReader(text)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Errorf("groff: %v\n%s", err, &errs)
	}
	for _, k := range shown(commands()) {
		if !strings.Contains(string(out), "sluice "+k.name) {
			t.Errorf("it lacks %s", k.name)
		}
		for _, o := range k.options {
			if !strings.Contains(string(out), o.text()) || !strings.Contains(string(out), o.help) {
				t.Errorf("it lacks %s of %s", o.text(), k.name)
			}
		}
	}
}

// TestCompletionOfBash asks bash what it would complete.
func TestCompletionOfBash(t *testing.T) {
	_, script, _ := execute("completion", "bash")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a file.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(words string, want ...string) {
		t.Helper()
		cmd := exec.Command("bash", "--noprofile", "--norc", "-c", script+`
COMP_WORDS=(`+words+`); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _sluice
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"; true`)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", words, err, out)
		}
		var got []string
		if len(out) > 0 {
			got = strings.Split(strings.TrimSpace(string(out)), "\n")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", words, got, want)
		}
	}
	f(`sluice ""`, "run", "check", "explain", "ctl", "upgrade", "tune", "hash", "man", "completion", "version", "help")
	f(`sluice ex`, "explain")
	f(`sluice tune --r`, "--revert", "--root")
	f(`sluice hash ""`, "key", "new-key", "password")
	f(`sluice ctl lim`, "limits", "limit")
	f(`sluice ctl --json up`, "upstreams", "upstream")
	f(`sluice check -`, "-c")
	f(`sluice explain --client ""`)
	f(`sluice nothing ""`)
	f(`sluice check -c "a"`, "a file.yaml")
}

// TestCompletionsParse has each shell that is there read its completion.
func TestCompletionsParse(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			code, script, errs := execute("completion", shell)
			for _, want := range []string{"dry-run", "password", "log-level"} {
				if code != exitOK || !strings.Contains(script, want) {
					t.Errorf("%d, %s: it lacks %s", code, errs, want)
				}
			}
			if strings.Contains(script, "demo-upstream") {
				t.Error("it holds a hidden command")
			}
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("%s is not there", shell)
			}
			file := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(shell, "-n", file).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// fullDisk takes a few bytes, as a file does on a disk that is about to be full.
type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), d.left)
	if d.left -= n; n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A command whose output was cut off fails, and says why.
func TestOutputIsWholeOrFails(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"man"}, {"completion", "bash"}, {"hash", "new-key"}, {"ctl", "--help"}, {"help"}} {
		var said bytes.Buffer
		if code := run(args, &fullDisk{10}, &said); code == exitOK || !strings.Contains(said.String(), "no space left") {
			t.Errorf("%v: exit code %d, %q", args, code, said.String())
		}
		if code := run(args, &fullDisk{1 << 20}, &said); code != exitOK {
			t.Errorf("%v, whole: exit code %d", args, code)
		}
	}
}
