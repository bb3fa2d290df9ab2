package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	maxFileBytes  = 16 << 20
	byteOrderMark = "\ufeff"
)

// source is the text of one file. Lines end in "\n" whatever they ended in on disk.
type source struct {
	name   string
	text   string
	starts []int // offset of each line; made when first asked for
}

// newSource accepts UTF-8 text without control characters, which a YAML parser could otherwise read as it likes.
func newSource(name string, text []byte) (*source, *Problem) {
	text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	s := &source{name: name}
	if len(text) > maxFileBytes {
		return s, &Problem{Pos: Pos{File: name}, Message: "the file is larger than 16 MiB"}
	}
	if bytes.IndexByte(text, '\r') >= 0 {
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	s.text = string(text)
	line, lineStart := 1, 0
	for i := 0; i < len(s.text); {
		c := s.text[i]
		if c >= ' ' && c < 0x7f || c == '\t' {
			i++
			continue
		}
		if c == '\n' {
			i++
			line, lineStart = line+1, i
			continue
		}
		r, size := utf8.DecodeRuneInString(s.text[i:])
		what := ""
		switch {
		case r == utf8.RuneError && size == 1:
			what = fmt.Sprintf("byte 0x%02x is not UTF-8", c)
		case c == '\r':
			what = "carriage return without a line feed"
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			what = fmt.Sprintf("control character %U", r)
		}
		if what != "" {
			column := utf8.RuneCountInString(s.text[lineStart:i]) + 1
			return s, &Problem{Pos: posAt(name, line, column), Message: what}
		}
		i += size
	}
	return s, nil
}

// line returns the n-th line, from 1, without its end; "" behind the last.
func (s *source) line(n int) string {
	if s.starts == nil {
		s.starts = append(s.starts, 0)
		for i := range len(s.text) {
			if s.text[i] == '\n' {
				s.starts = append(s.starts, i+1)
			}
		}
	}
	if n < 1 || n > len(s.starts) {
		return ""
	}
	text := s.text[s.starts[n-1]:]
	if end := strings.IndexByte(text, '\n'); end >= 0 {
		text = text[:end]
	}
	return text
}

// inside returns the position of the offset-th byte of a scalar's value, where the value stands in the source as it is:
// plain, or in quotes without escapes, on one line. Otherwise it returns the position of the scalar.
func (s *source) inside(at Pos, value string, offset int) Pos {
	runes := []rune(s.line(int(at.Line)))
	column := int(at.Column) - 1
	if column < 0 || column >= len(runes) {
		return at
	}
	if runes[column] == '"' || runes[column] == '\'' {
		column++
	}
	if !strings.HasPrefix(string(runes[column:]), value) {
		return at
	}
	return posAt(at.File, int(at.Line), column+1+utf8.RuneCountInString(value[:offset]))
}
