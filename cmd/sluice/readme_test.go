package main

import (
	"bufio"
	"os"
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
