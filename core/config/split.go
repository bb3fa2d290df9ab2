package config

import "strings"

// chunkBytes is about the text that is parsed at once. What a parser holds for a chunk is garbage when the chunk has been
// read, so a large file costs time in proportion to its size, and chunks can be parsed beside each other.
const chunkBytes = 32 << 10

// segment is a part of a file that is YAML by itself: keys of the document, or items of its `routes:`.
//
// YAML wants what belongs to a key of the document, and to an item of a sequence, to be indented deeper than that. So a
// line that starts in the first column with a key, or at the indentation of the first item with "- ", can be nothing else,
// and a file can be cut there. Besides speed this means that one syntax error does not hide what is wrong elsewhere.
type segment struct {
	text         string
	linesBefore  int
	items        bool // of routes
	routesFollow bool // the text ends in `routes:`, whose items are the next segments
}

// splitter cuts a text into segments.
type splitter struct {
	text       string
	chunkBytes int
	start      int // of the segment that is open
	startLine  int // lines before it
	itemIndent int // of the items of routes; -1 outside of them
	awaitItem  bool
	segments   []segment
}

// split returns the segments of s. It refuses whatever is not one document without directives.
func split(s *source, chunkBytes int) ([]segment, *Problem) {
	p := splitter{text: s.text, chunkBytes: chunkBytes, itemIndent: -1}
	refuse := func(line int, message, hint string) *Problem {
		return &Problem{Pos: Pos{File: s.name, Line: line + 1, Column: 1}, Message: message, Hint: hint}
	}
	sawContent, sawMarker := false, false
	line, at := 0, 0
	for at < len(p.text) {
		end := at + strings.IndexByte(p.text[at:], '\n')
		if end < at {
			end = len(p.text)
		}
		text := p.text[at:end]
		switch {
		case isBlank(text):
		case isMarker(text, "---") && !sawContent && !sawMarker:
			sawMarker = true
			if !isBlank(text[3:]) {
				return p.segments, refuse(line, "nothing may follow --- on its line", "")
			}
			p.start, p.startLine = min(end+1, len(p.text)), line+1
		case isMarker(text, "---") || isMarker(text, "..."):
			p.close(at, line)
			return p.segments, refuse(line, "a file holds one document", "put the rest into a file of its own and include it")
		case text[0] == '%' && !sawContent:
			return p.segments, refuse(line, "YAML directives are not read", "")
		default:
			sawContent = true
			p.content(text, at, line)
		}
		line++
		at = end + 1
	}
	p.close(len(p.text), line)
	return p.segments, nil
}

// content looks at a line that is neither blank nor a comment, and cuts before it where it may.
func (p *splitter) content(text string, at, line int) {
	indent := len(text) - len(strings.TrimLeft(text, " "))
	item := isMarker(text[indent:], "-")
	if p.awaitItem {
		p.awaitItem = false
		if item {
			p.close(at, line)
			p.segments[len(p.segments)-1].routesFollow = true
			p.itemIndent = indent
			return
		}
	}
	if p.itemIndent >= 0 {
		if item && indent == p.itemIndent {
			if at-p.start >= p.chunkBytes {
				p.close(at, line)
			}
			return
		}
		if indent > 0 || text[0] == '\t' {
			return
		}
		p.close(at, line)
		p.itemIndent = -1
	}
	key, rest, isKey := strings.Cut(text, ":")
	if !isKey || !isDocumentKey(key) || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return
	}
	if at > p.start {
		p.close(at, line)
	}
	p.awaitItem = key == "routes" && isBlank(rest)
}

// close ends the open segment before the line that starts at the offset at.
func (p *splitter) close(at, line int) {
	if at > p.start {
		p.segments = append(p.segments, segment{text: p.text[p.start:at], linesBefore: p.startLine, items: p.itemIndent >= 0})
	}
	p.start, p.startLine = at, line
}

// isBlank tells whether nothing but a comment stands in the text.
func isBlank(text string) bool {
	text = strings.TrimLeft(text, " \t")
	return text == "" || text[0] == '#'
}

// isMarker tells whether the text starts with the marker as a word.
func isMarker(text, marker string) bool {
	rest, ok := strings.CutPrefix(text, marker)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}
