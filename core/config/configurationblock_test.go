package config

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documentedIn describes each block of the grammar. Before the table of a block stands a comment of HTML,
//
//	<!-- block NAME
//	a configuration with HERE in the place of the block's keys
//	-->
//
// in which the keys that the block cannot do without stand in lines before HERE. A block may have several tables: the configuration is
// written once, and one table may belong to several blocks. Top-level keys that a configuration or an example lacks are those of the first
// example of the file.
const documentedIn = "../../CONFIGURATION.md"

// documentedBlock is one block, with the rows of all its tables.
type documentedBlock struct {
	name, frame string
	rows        []documentedRow
}

// documentedRow is one key, as its row says.
type documentedRow struct {
	line      int
	key       string
	required  bool     // the key must be given
	value     string   // default, where it is a literal; else ""
	low, high string   // bounds, where they are a range; else ""
	words     []string // that the value may be, where bounds are a list of them
}

var (
	literalCell = regexp.MustCompile("^`([^`]+)`$")
	boundsCell  = regexp.MustCompile("`([^`]+)` to `([^`]+)`")
	wordsCell   = regexp.MustCompile("^(`[^`]+`(?:, `[^`]+`)+)(?:;|$)") // what follows says when they may stand
	topLevelKey = regexp.MustCompile(`(?m)^([a-z_]+):`)
)

// readDocumented gives the blocks of the page, and its examples by line.
func readDocumented(t *testing.T) (blocks map[string]*documentedBlock, examples map[int]string) {
	t.Helper()
	text, err := os.ReadFile(documentedIn)
	if err != nil {
		t.Fatal(err)
	}
	blocks, examples = map[string]*documentedBlock{}, map[int]string{}
	var current []*documentedBlock // whose table comes next, or is being read
	inTable := false
	lines := strings.Split(string(text), "\n")
	until := func(i int, end string) (within string, next int) {
		for i++; i < len(lines) && lines[i] != end; i++ {
			within += lines[i] + "\n"
		}
		return within, i
	}
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		name, isBlock := strings.CutPrefix(line, "<!-- block ")
		switch {
		case strings.HasPrefix(line, "#"):
			current, inTable = nil, false
		case isBlock:
			if inTable {
				current, inTable = nil, false
			}
			name, referred := strings.CutSuffix(name, " -->")
			if blocks[name] == nil {
				blocks[name] = &documentedBlock{name: name}
			}
			current = append(current, blocks[name])
			if !referred {
				blocks[name].frame, i = until(i, "-->")
			}
		case line == "```yaml":
			examples[i+1], i = until(i, "```")
		case strings.HasPrefix(line, "| `"):
			inTable = true
			row := readRow(t, i+1, line)
			for _, b := range current {
				b.rows = append(b.rows, row)
			}
			if len(current) == 0 {
				t.Errorf("line %d: this row is of no block", i+1)
			}
		}
	}
	if len(blocks) == 0 || len(examples) == 0 {
		t.Fatalf("%s has no blocks, or no examples", documentedIn)
	}
	return blocks, examples
}

func readRow(t *testing.T, line int, text string) documentedRow {
	t.Helper()
	cells := strings.Split(strings.Trim(text, "|"), "|")
	if len(cells) != 4 {
		t.Fatalf("line %d: a row has four cells: key, default, bounds and meaning", line)
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	row := documentedRow{line: line, key: strings.Trim(cells[0], "`"), required: cells[1] == "required"}
	if m := literalCell.FindStringSubmatch(cells[1]); m != nil {
		row.value = m[1]
	}
	if m := boundsCell.FindStringSubmatch(cells[2]); m != nil {
		row.low, row.high = m[1], m[2]
	}
	if m := wordsCell.FindStringSubmatch(cells[2]); m != nil {
		for word := range strings.SplitSeq(m[1], ", ") {
			row.words = append(row.words, strings.Trim(word, "`"))
		}
	}
	if slices.Contains(cells, "") {
		t.Errorf("line %d: a cell is empty", line)
	}
	return row
}

// with is the block's configuration with a key in the place of HERE, and without the block's own line for that key; "": HERE is empty.
func (b *documentedBlock) with(key, value string) string {
	lines := strings.Split(strings.TrimSuffix(b.frame, "\n"), "\n")
	here := slices.IndexFunc(lines, func(s string) bool { return strings.TrimSpace(s) == "HERE" })
	if here < 0 {
		return "the block has no HERE"
	}
	indent := strings.TrimSuffix(lines[here], "HERE")
	for i := here - 1; i >= 0; i-- {
		start, own := strings.CutSuffix(strings.TrimSuffix(lines[i], strings.TrimLeft(lines[i], " -")), "- ") // of an item of a list
		if len(start) < len(indent) && !own {
			break
		}
		if strings.HasPrefix(lines[i][len(indent):], key+":") {
			lines[i] = strings.TrimRight(lines[i][:len(indent)], " ")
		}
		if own {
			break
		}
	}
	before := strings.TrimRight(strings.Join(lines[:here], "\n"), "\n")
	switch {
	case value != "":
		lines[here] = indent + key + ": " + value
	case strings.HasSuffix(before, ":"):
		lines[here] = indent + "{}"
	default:
		lines[here] = ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// withKeys is the block's configuration with all these keys, be they right or not.
func (b *documentedBlock) withKeys(keys []string) string {
	var text strings.Builder
	for line := range strings.Lines(b.frame) {
		indent, _, here := strings.Cut(line, "HERE")
		if !here {
			text.WriteString(line)
			continue
		}
		for _, key := range keys {
			fmt.Fprintf(&text, "%s%q: ~\n", indent, key)
		}
	}
	return text.String()
}

// completer gives a configuration the top-level keys that it lacks, from the first example.
func completer(examples map[int]string) func(text string) string {
	first := examples[slices.Min(slices.Collect(maps.Keys(examples)))]
	parts := topLevelKey.FindAllStringIndex(first, -1)
	return func(text string) string {
		given := map[string]bool{}
		for _, m := range topLevelKey.FindAllStringSubmatch(text, -1) {
			given[m[1]] = true
		}
		for i, part := range parts {
			end := len(first)
			if i+1 < len(parts) {
				end = parts[i+1][0]
			}
			if !given[strings.TrimSuffix(first[part[0]:part[1]], ":")] {
				text += first[part[0]:end]
			}
		}
		return text
	}
}

// documentedEnv has a value for each name, and a text for each file.
func documentedEnv() Env {
	env := filesEnv(nil)
	env.LookupEnv = func(string) (string, bool) { return "a-secret-of-thirty-two-bytes-at-least", true }
	env.ReadFile = func(name string) ([]byte, error) {
		switch {
		case strings.HasSuffix(name, ".txt"):
			return []byte("10.0.0.0/8 # the office\n"), nil
		case strings.HasSuffix(name, ".json"):
			return []byte(`["10.0.9.1:80"]`), nil
		case strings.HasPrefix(name, "/run/secrets/"):
			return []byte("a-secret-of-thirty-two-bytes-at-least"), nil
		}
		return nil, fs.ErrNotExist
	}
	env.ReadLarge = func(string) ([]byte, error) { return []byte(`{"name":"beta"}` + "\n"), nil }
	env.ReadVault = func(*Vault, string, string, string) (string, error) {
		return "a-secret-of-thirty-two-bytes-at-least", nil
	}
	return env
}

func parseDocumented(text string) (*Config, Problems) {
	return Parse("sluice.yaml", []byte(text), documentedEnv())
}
