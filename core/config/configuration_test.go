package config

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDocumentedExamples reads each example of the page, completed by its first.
func TestDocumentedExamples(t *testing.T) {
	_, examples := readDocumented(t)
	complete := completer(examples)
	for line, text := range examples {
		if cfg, problems := parseDocumented(strings.Repeat("\n", line) + complete(text)); cfg == nil {
			t.Errorf("the example after line %d is refused:\n%s", line, problems)
		}
	}
}

// TestDocumentedKeys asks the decoder which keys it knows in each block of the page, and the source for blocks that are not there.
func TestDocumentedKeys(t *testing.T) {
	blocks, examples := readDocumented(t)
	complete := completer(examples)
	candidates, lists := keysOfSource(t)
	known := map[string]bool{} // sets of keys that some block has
	for _, b := range blocks {
		rows := map[string]int{}
		for _, r := range b.rows {
			if rows[r.key] > 0 {
				t.Errorf("block %s: %q has rows in lines %d and %d", b.name, r.key, rows[r.key], r.line)
			}
			rows[r.key] = r.line
		}
		keys := knownKeys(b, candidates, complete)
		for _, key := range keys {
			if rows[key] == 0 {
				t.Errorf("block %s: key %q has no row", b.name, key)
			}
			delete(rows, key)
		}
		for key, line := range rows {
			t.Errorf("line %d: block %s has no key %q", line, b.name, key)
		}
		known[strings.Join(keys, " ")] = true
	}
	for list, at := range lists {
		if !known[list] {
			t.Errorf("%s: no block of the page has these keys: %s", at, list)
		}
	}
}

// knownKeys are those of the candidates that the decoder does not call unknown in the block.
func knownKeys(b *documentedBlock, candidates []string, complete func(string) string) (keys []string) {
	atOnce := 200 // each is a problem, of which so many are told
	if b.name == "policy" {
		atOnce = 1 // a second key is refused there, whatever it is
	}
	for some := range slices.Chunk(candidates, atOnce) {
		_, problems := parseDocumented(complete(b.withKeys(some)))
		told := problems.String()
		for _, key := range some {
			if !strings.Contains(told, fmt.Sprintf("unknown key %q", key)) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// keysOfSource gives all words of the package that could be keys, and the lists of keys that mapping is given, with where.
func keysOfSource(t *testing.T) (candidates []string, lists map[string]token.Position) {
	t.Helper()
	// The keys of these depend on what they are called for.
	computed := []string{"endpoint", "algorithm", "retryMap", "target"}
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, file)
	}
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	check := types.Config{Error: func(error) {}} // nothing is imported, which constants of strings do not mind
	check.Check("config", files, source, &info)  //nolint:errcheck // as above
	words := map[string]bool{}
	lists = map[string]token.Position{}
	isList := regexp.MustCompile(`^[a-z][a-z0-9_]*( [a-z0-9_]+)*$`)
	for _, file := range source {
		in := ""
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				in = n.Name.Name
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && isList.MatchString(strings.TrimSpace(s)) {
					for word := range strings.FieldsSeq(s) {
						words[word] = true
					}
				}
			case *ast.CallExpr:
				called, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || called.Sel.Name != "mapping" {
					break
				}
				value := info.Types[n.Args[2]].Value
				switch {
				case value != nil:
					if list := strings.Fields(constant.StringVal(value)); len(list) > 0 {
						slices.Sort(list)
						lists[strings.Join(list, " ")] = files.Position(n.Pos())
					}
				case !slices.Contains(computed, in):
					t.Errorf("%s: the keys are no constant, and nobody sees to it that they have a table", files.Position(n.Pos()))
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(words)), lists
}

// TestDocumentedDefaults writes each default that is a literal, and leaves each key out that must be given.
func TestDocumentedDefaults(t *testing.T) {
	blocks, examples := readDocumented(t)
	complete := completer(examples)
	count := 0
	for _, b := range blocks {
		for _, r := range b.rows {
			without, _ := parseDocumented(complete(b.with(r.key, "")))
			switch {
			case r.required && without != nil:
				t.Errorf("line %d: %s is accepted without %q", r.line, b.name, r.key)
			case r.value == "":
			default:
				count++
				with, problems := parseDocumented(complete(b.with(r.key, r.value)))
				switch {
				case with == nil || without == nil:
					t.Errorf("line %d: %s is refused with %s: %s, or without it:\n%s", r.line, b.name, r.key, r.value, problems)
				case !same(reflect.ValueOf(*with), reflect.ValueOf(*without)):
					t.Errorf("line %d: in %s, %s: %s is not the default", r.line, b.name, r.key, r.value)
				}
			}
		}
	}
	if count < 100 {
		t.Errorf("%d defaults are literals", count)
	}
}

// same compares values, but for the positions in them.
func same(a, b reflect.Value) bool {
	switch {
	case a.Type() == reflect.TypeFor[Pos]():
		return true
	case a.Type() == reflect.TypeFor[*regexp.Regexp]():
		return a.IsNil() == b.IsNil() && (a.IsNil() || a.Elem().Field(0).String() == b.Elem().Field(0).String())
	}
	switch a.Kind() {
	case reflect.Pointer:
		return a.IsNil() == b.IsNil() && (a.IsNil() || same(a.Elem(), b.Elem()))
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, k := range a.MapKeys() {
			if v := b.MapIndex(k); !v.IsValid() || !same(a.MapIndex(k), v) {
				return false
			}
		}
		return true
	}
	return a.Equal(b)
}

// TestDocumentedBounds writes the ends of each range, what is just outside of them, and each of several words.
func TestDocumentedBounds(t *testing.T) {
	blocks, examples := readDocumented(t)
	complete := completer(examples)
	count := 0
	for _, b := range blocks {
		for _, r := range b.rows {
			accept := func(value string, want bool) {
				if cfg, problems := parseDocumented(complete(b.with(r.key, value))); (cfg != nil) != want {
					t.Errorf("line %d: %s with %s: %s: accepted %t\n%s", r.line, b.name, r.key, value, cfg != nil, problems)
				}
			}
			for _, word := range r.words {
				accept(word, true)
			}
			if r.words != nil {
				accept("nonsense", false)
			}
			if r.low == "" {
				continue
			}
			count++
			accept(r.low, true)
			accept(r.high, true)
			below, above, ok := outside(r.low, r.high)
			if !ok {
				t.Errorf("line %d: the bounds %s and %s cannot be read", r.line, r.low, r.high)
			}
			if below != "" {
				accept(below, false)
			}
			accept(above, false)
		}
	}
	if count < 100 {
		t.Errorf("%d bounds are ranges", count)
	}
}

// outside gives what is just below and above a range; "": there is nothing below.
func outside(low, high string) (below, above string, ok bool) {
	unit := ""
	if strings.HasSuffix(high, "/s") {
		unit, low, high = "/s", strings.TrimSuffix(low, "/s"), strings.TrimSuffix(high, "/s")
	}
	if strings.HasSuffix(high, "%") {
		unit, low, high = "%", strings.TrimSuffix(low, "%"), strings.TrimSuffix(high, "%")
	}
	if a, err := strconv.Atoi(low); err == nil && unit != "%" {
		if b, err := strconv.Atoi(high); err == nil {
			return strconv.Itoa(a-1) + unit, strconv.Itoa(b+1) + unit, true
		}
	}
	if a, err := strconv.ParseFloat(low, 64); err == nil {
		if b, err := strconv.ParseFloat(high, 64); err == nil {
			return formatShare(a-0.0001) + unit, formatShare(b+0.0001) + unit, true
		}
	}
	if a, _, isTime := parseDuration(low); isTime {
		if b, _, isTime := parseDuration(high); isTime {
			if a > 0 {
				below = formatDuration(a - min(a/2, time.Millisecond))
			}
			return below, formatDuration(b + time.Second), true
		}
	}
	a, _, isSize := parseSize(low)
	b, _, also := parseSize(high)
	if a > 0 {
		below = strconv.FormatInt(a-1, 10) + "B" + unit
	}
	return below, strconv.FormatInt(b+1, 10) + "B" + unit, isSize && also
}

// TestDocumentedLinks follows the links within the page.
func TestDocumentedLinks(t *testing.T) {
	text, err := os.ReadFile(documentedIn)
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		kept := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(kept, " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(string(text), -1) {
		if !anchors[m[1]] {
			t.Errorf("there is no heading for #%s", m[1])
		}
	}
}
