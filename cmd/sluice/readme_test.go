package main

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
)

// TestReadme reads every YAML block of the README as a whole configuration: what a newcomer copies is accepted without as much
// as a warning.
func TestReadme(t *testing.T) {
	const file = "../../README.md"
	blocks := yamlBlocks(t, file)
	if len(blocks) == 0 {
		t.Fatalf("%s holds no configuration", file)
	}
	for _, b := range blocks {
		// Empty lines before it make positions those of the README.
		text := strings.Repeat("\n", b.line) + b.text
		if _, problems := config.Parse("README.md", []byte(text), config.Env{}); len(problems) > 0 {
			t.Errorf("the configuration after line %d is not accepted:\n%s", b.line, problems)
		}
	}
}

// TestDemo checks what `make run` starts.
func TestDemo(t *testing.T) {
	if _, problems := config.Load("../../demo/sluice.yaml"); len(problems) > 0 {
		t.Errorf("%s", problems)
	}
}

// TestCitedTestsExist checks that the scripts, tests and files which THREATS names are there.
func TestCitedTestsExist(t *testing.T) {
	functions := testFunctions(t, "../..")
	f := func(file, pattern string, exists func(name string) bool) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile("`"+pattern+"`").FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s names nothing like %s", file, pattern)
		}
		for _, match := range found {
			if !exists(match[1]) {
				t.Errorf("%s names %s, which does not exist", file, match[1])
			}
		}
	}
	isFile := func(before, after string) func(string) bool {
		return func(name string) bool {
			_, err := os.Stat(before + name + after)
			return err == nil
		}
	}
	f("../../core/THREATS.md", "((?:Test|Fuzz)[A-Za-z0-9]+)", func(name string) bool { return functions[name] })
	f("../../core/THREATS.md", "([a-z0-9_]+)\\.txtar", isFile("testdata/script/", ".txtar"))
	f("../../core/THREATS.md", "([a-z0-9_/]+\\.go)", func(name string) bool {
		return isFile("../../core/", "")(name) || isFile("../../", "")(name)
	})
}

// TestFeatures checks that each part of FEATURES is shown by scripts and tests which are there, and that README finds the parts it speaks of.
func TestFeatures(t *testing.T) {
	functions := testFunctions(t, "../..")
	text, err := os.ReadFile("../../FEATURES.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	name := regexp.MustCompile("`([^`]+)`")
	for part := range strings.SplitSeq(string(text), "\n#") {
		level, rest, _ := strings.Cut(part, " ")
		title, body, _ := strings.Cut(rest, "\n")
		anchors[anchor(title)] = true
		if level != "##" { // what is left of three
			continue
		}
		_, shown, _ := strings.Cut(body, "\nShown by ")
		all := name.FindAllStringSubmatch(shown, -1)
		if len(all) == 0 {
			t.Errorf("nothing shows %q", title)
		}
		for _, match := range all {
			if _, err := os.Stat("testdata/script/" + match[1] + ".txtar"); err != nil && !functions[match[1]] {
				t.Errorf("%q is shown by %s, which is neither a script nor a test", title, match[1])
			}
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\(FEATURES\.md#([^)]*)\)`).FindAllStringSubmatch(string(readme), -1)
	if len(links) == 0 {
		t.Error("README.md speaks of no part of FEATURES.md")
	}
	for _, link := range links {
		if !anchors[link[1]] {
			t.Errorf("README.md speaks of FEATURES.md#%s, which is not there", link[1])
		}
	}
}

// anchor is how a link names a heading.
func anchor(title string) string {
	kept := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(title), "")
	return strings.ReplaceAll(kept, " ", "-")
}

// testFunctions are the names of all tests and fuzzers below root.
func testFunctions(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
			names[match[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// codeBlock is the text between two fences of Markdown.
type codeBlock struct {
	line int // of the opening fence, from 1
	text string
}

func yamlBlocks(t *testing.T, file string) (blocks []codeBlock) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	inside, isYAML := false, false
	scanner := bufio.NewScanner(f)
	for line := 1; scanner.Scan(); line++ {
		text := scanner.Text()
		switch {
		case strings.HasPrefix(text, "```"):
			inside = !inside
			if isYAML = inside && text == "```yaml"; isYAML {
				blocks = append(blocks, codeBlock{line: line})
			}
		case isYAML:
			blocks[len(blocks)-1].text += text + "\n"
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	if inside {
		t.Fatalf("%s ends inside of a code block", file)
	}
	return blocks
}
