package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// TestProblems reads each archive of testdata/problems: sluice.yaml and what it includes, NAME=value lines in "env", and
// in "want" exactly what is printed. "\r" stands for a carriage return and "\t" for a tab in a file named *.escaped.
func TestProblems(t *testing.T) {
	archives, err := filepath.Glob("testdata/problems/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("cannot find archives: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := archiveFiles(string(archive))
			cfg, problems := Parse("sluice.yaml", []byte(files["sluice.yaml"]), filesEnv(files))
			if got := problems.String(); got != want {
				if *update {
					updateArchive(t, name, string(archive), got)
				}
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if (cfg == nil) != problems.Refused() {
				t.Errorf("config %v, refused %t", cfg, problems.Refused())
			}
		})
	}
}

var update = flag.Bool("update", false, "write what is printed into testdata")

// archiveFiles reads the txtar format: a comment, then files that each follow a line "-- NAME --".
func archiveFiles(archive string) (files map[string]string, want string) {
	files = map[string]string{}
	name := ""
	for line := range strings.Lines(archive) {
		if rest, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(rest, " --\n") {
			name = strings.TrimSuffix(rest, " --\n")
			files[name] = ""
		} else if name != "" {
			files[name] += line
		}
	}
	for name, text := range files {
		if plain, escaped := strings.CutSuffix(name, ".escaped"); escaped {
			delete(files, name)
			files[plain] = strings.NewReplacer(`\r`, "\r", `\t`, "\t").Replace(text)
		}
	}
	want = files["want"]
	delete(files, "want")
	return files, want
}

// updateArchive replaces what follows the marker of the last file, which is "want".
func updateArchive(t *testing.T, name, archive, got string) {
	t.Helper()
	head, _, found := strings.Cut(archive, "-- want --\n")
	marker := "-- want --\n"
	if !found {
		marker = "-- want.escaped --\n"
		head, _, _ = strings.Cut(archive, marker)
		got = strings.NewReplacer("\r", `\r`, "\t", `\t`).Replace(got)
	}
	if err := os.WriteFile(name, []byte(head+marker+got), 0o644); err != nil {
		t.Fatal(err)
	}
}

// filesEnv offers the files of a map, and the variables in the one named "env".
func filesEnv(files map[string]string) Env {
	read := func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("no such file")}
	}
	return Env{
		ReadFile:  read,
		ReadLarge: read,
		Glob: func(pattern string) ([]string, error) {
			var found []string
			for name := range files {
				ok, err := path.Match(pattern, name)
				if err != nil {
					return nil, err
				}
				if ok {
					found = append(found, name)
				}
			}
			sort.Strings(found)
			return found, nil
		},
		ReadVault: func(_ *Vault, mount, path, key string) (string, error) {
			if mount == "secret" && path == "shop/keys" && key == "long" {
				return "a-secret-of-the-vault-that-is-long-enough", nil
			}
			return "", errors.New("permission denied")
		},
		LookupEnv: func(name string) (string, bool) {
			for line := range strings.Lines(files["env"]) {
				if value, ok := strings.CutPrefix(line, name+"="); ok {
					return strings.TrimSuffix(value, "\n"), true
				}
			}
			return "", false
		},
	}
}

func TestProblemsAreBounded(t *testing.T) {
	text := "listeners: { http: { bind: \":80\" } }\nroutes:\n" + strings.Repeat("- { match: /x, to: nowhere }\n", 3*maxProblems)
	_, problems := Parse("sluice.yaml", []byte(text), Env{})
	errors, warnings := 0, 0
	for _, p := range problems {
		if p.Warning {
			warnings++
		} else {
			errors++
		}
	}
	if errors != maxProblems+1 || warnings != maxProblems+1 {
		t.Errorf("got %d errors and %d warnings", errors, warnings)
	}
	if printed := problems.String(); !strings.Contains(printed, "sluice.yaml: 2000 more problems are not shown\n") {
		t.Errorf("the rest is not counted: %s", printed[len(printed)-200:])
	}
}

func TestLongLinesAreCutAroundTheColumn(t *testing.T) {
	text := "listeners: { http: { bind: \":80\", forward: { via: " + strings.Repeat("x", 300) + ", vai: y } } }\n"
	_, problems := Parse("sluice.yaml", []byte(text), Env{})
	if len(problems) == 0 {
		t.Fatal("no problem")
	}
	for _, p := range problems {
		lines := strings.Split(p.String(), "\n")
		source, caret := []rune(lines[1]), []rune(lines[2])
		if len(source) > maxSourceRunes+len(printIndent) {
			t.Errorf("the line has %d characters", len(source))
		}
		at := len(caret) - 1
		if want := []rune(text)[p.Pos.Column-1]; source[at] != want {
			t.Errorf("the caret stands under %q, want %q, in\n%s", source[at], want, p)
		}
	}
}
