package config

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxProblems    = 1000 // errors kept, and as many warnings: what is over is counted
	maxSourceRunes = 160  // of a source line that is printed
	maxQuotedRunes = 80   // of a value that is repeated in a message
	minConcealed   = 4    // bytes of a credential
	printIndent    = "    "
)

// Problem is one thing wrong, or doubtful, in a configuration.
type Problem struct {
	Pos     Pos
	Warning bool   // does not refuse the configuration
	Message string // lower case, one line
	Hint    string // what would be right; may be empty
	Source  string // the line at Pos, without its line end, with stars in the place of credentials

	elsewhere bool // it stands in a file whose lines are not shown
}

// Problems is everything found in one pass, in the order of the files read and of the lines in each.
type Problems []Problem

// Refused tells whether any of the problems is more than a warning.
func (ps Problems) Refused() bool {
	for i := range ps {
		if !ps[i].Warning {
			return true
		}
	}
	return false
}

// String returns what WriteTo writes.
func (ps Problems) String() string {
	var b strings.Builder
	ps.WriteTo(&b) //nolint:errcheck // a Builder does not fail
	return b.String()
}

// WriteTo prints each problem as "file:line:column: message", the source line, a caret under the column, and the hint.
func (ps Problems) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for i := range ps {
		n, err := io.WriteString(w, ps[i].String())
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// String returns the problem as Problems.WriteTo prints it.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Pos.String())
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	b.WriteByte('\n')
	if p.Pos.Line > 0 && (p.Source != "" || !p.elsewhere) {
		writeSource(&b, p.Source, int(p.Pos.Column))
	}
	if p.Hint != "" {
		b.WriteString(printIndent + p.Hint + "\n")
	}
	return b.String()
}

// String returns "file:line:column", or the file alone where the whole of it is meant.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// writeSource prints the line and a caret under its column-th character. Tabs are repeated above the caret, so that it
// stands right at any tab width; what a terminal would obey is replaced; of a long line only the part around the column
// is printed.
func writeSource(b *strings.Builder, line string, column int) {
	runes := []rune(line)
	at := min(max(column-1, 0), len(runes))
	from := 0
	if len(runes) > maxSourceRunes {
		from = max(0, min(at-maxSourceRunes/2, len(runes)-maxSourceRunes))
		runes = runes[from:min(len(runes), from+maxSourceRunes)]
	}
	var caret strings.Builder
	b.WriteString(printIndent)
	caret.WriteString(printIndent)
	for i, r := range runes {
		if r != '\t' && !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
		if i >= at-from {
			continue
		}
		if r != '\t' {
			r = ' '
		}
		caret.WriteRune(r)
	}
	b.WriteByte('\n')
	b.WriteString(caret.String())
	b.WriteString("^\n")
}

// clip shortens a value that is repeated in a message.
func clip(s string) string {
	n := 0
	for i := range s {
		if n == maxQuotedRunes {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// collector gathers problems. What it is told twice, as happens where an alias repeats a mistake, it keeps once.
type collector struct {
	list     []Problem
	seen     map[Problem]struct{}
	errors   int
	warnings int
	private  []string // credentials that stand in the files
}

func (c *collector) add(p Problem) {
	if c.seen == nil {
		c.seen = make(map[Problem]struct{})
	}
	if _, twice := c.seen[p]; twice {
		return
	}
	count := &c.errors
	if p.Warning {
		count = &c.warnings
	}
	*count++
	if *count <= maxProblems {
		c.seen[p] = struct{}{}
		c.list = append(c.list, p)
	}
}

// conceal makes that no source line that is shown has a credential. Shorter ones could not be told from the text around them.
func (c *collector) conceal(value string) {
	if len(value) >= minConcealed && len(c.private) < maxProblems {
		c.private = append(c.private, value)
	}
}

// shown is a source line without credentials. Its columns stay what they are.
func (c *collector) shown(line string) string {
	for _, value := range c.private {
		line = strings.ReplaceAll(line, value, strings.Repeat("*", utf8.RuneCountInString(value)))
	}
	return line
}

// result sorts the problems by the order of the files and adds the source lines.
func (c *collector) result(sources []*source) Problems {
	if len(c.list) == 0 {
		return nil
	}
	order := make(map[string]int, len(sources))
	for i, s := range sources {
		order[s.name] = i
	}
	sort.SliceStable(c.list, func(i, j int) bool {
		a, b := c.list[i].Pos, c.list[j].Pos
		if a.File != b.File {
			return order[a.File] < order[b.File]
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	for i := range c.list {
		p := &c.list[i]
		if k, ok := order[p.Pos.File]; ok && p.Pos.Line > 0 {
			p.Source = strings.Clone(c.shown(sources[k].line(int(p.Pos.Line)))) // so that it does not keep the whole text
		}
	}
	list := c.list
	for _, more := range []struct {
		count   int
		warning bool
		what    string
	}{{c.errors, false, "problems"}, {c.warnings, true, "warnings"}} {
		if more.count > maxProblems {
			list = append(list, Problem{Pos: Pos{File: sources[0].name}, Warning: more.warning,
				Message: fmt.Sprintf("%d more %s are not shown", more.count-maxProblems, more.what)})
		}
	}
	return list
}
