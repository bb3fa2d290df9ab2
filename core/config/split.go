package config

import "strings"

const (
	// chunkBytes is about the text of items that is parsed at once. What a parser holds for a chunk is garbage when the
	// chunk has been read, so a large file costs time in proportion to its size, and chunks can be parsed beside each other.
	chunkBytes = 32 << 10
	// chunkKeys bounds the keys of a chunk: the parser takes time that grows with the square of the keys of a map.
	chunkKeys = 256
)

// segment is a part of a file that is YAML by itself: keys of the document, or items of one of its large collections.
//
// YAML wants what belongs to a key of the document, to an item of a sequence, or to a key of a mapping to be indented
// deeper than that (but for a sequence, which may stand right under its key). So a line that starts in the first column
// with a key, or at the indentation of the first item with another, can be nothing else, and a file can be cut there.
// Besides speed this means that one syntax error does not hide what is wrong elsewhere.
type segment struct {
	text        string
	linesBefore int
	of          string // listeners, upstreams, policies, consumers or routes, whose items these are; "" for keys of the document
	items       int    // in it
	itemIndent  int
	follow      bool // the text ends in a key whose items are the next segments
}

// splitter cuts a text into segments.
type splitter struct {
	text       string
	chunkBytes int
	start      int  // of the segment that is open
	startLine  int  // lines before it
	items      int  // in it
	filled     bool // it is more than comments
	of         string
	itemIndent int
	awaits     string // the key that stood last, where nothing followed it on its line
	segments   []segment
}

// split returns the segments of s. It refuses whatever is not one document without directives.
func split(s *source, chunkBytes int) ([]segment, *Problem) {
	p := splitter{text: s.text, chunkBytes: chunkBytes}
	refuse := func(line int, message, hint string) *Problem {
		return &Problem{Pos: posAt(s.name, line+1, 1), Message: message, Hint: hint}
	}
	sawContent, sawMarker := false, false
	var problem *Problem
	at, line := eachLine(s.text, 0, func(text string, at, line int) bool {
		switch {
		case isBlank(text):
		case isMarker(text, "---") && !sawContent && !sawMarker:
			sawMarker = true
			if !isBlank(text[3:]) {
				problem = refuse(line, "nothing may follow --- on its line", "")
				return false
			}
			p.start, p.startLine = min(at+len(text)+1, len(p.text)), line+1
		case isMarker(text, "---") || isMarker(text, "..."):
			problem = refuse(line, "a file holds one document", "put the rest into a file of its own and include it")
			return false
		case text[0] == '%' && !sawContent:
			problem = refuse(line, "YAML directives are not read", "")
			return false
		default:
			sawContent = true
			p.content(text, at, line)
		}
		return true
	})
	p.close(at, line)
	return p.segments, problem
}

// single returns each item of a segment as a segment of its own.
func (s segment) single() []segment {
	p := splitter{text: s.text, chunkBytes: 1, startLine: s.linesBefore, of: s.of, itemIndent: s.itemIndent}
	at, line := eachLine(s.text, s.linesBefore, func(text string, at, line int) bool {
		if !isBlank(text) {
			p.content(text, at, line)
		}
		return true
	})
	p.close(at, line)
	return p.segments
}

// eachLine calls visit for each line, with its offset and the number of lines before it, until that returns false.
// It returns where it stopped.
func eachLine(text string, line int, visit func(text string, at, line int) bool) (int, int) {
	at := 0
	for ; at < len(text); line++ {
		end := at + strings.IndexByte(text[at:], '\n')
		if end < at {
			end = len(text)
		}
		if !visit(text[at:end], at, line) {
			return at, line
		}
		at = end + 1
	}
	return len(text), line
}

// content looks at a line that is neither blank nor a comment, and cuts before it where it may.
func (p *splitter) content(text string, at, line int) {
	indent := len(text) - len(strings.TrimLeft(text, " "))
	defer func() { p.filled = true }() // after a cut before this line
	if of := p.awaits; of != "" {
		p.awaits = ""
		if startsItem(of, text[indent:]) && (indent > 0 || of == "routes") {
			p.close(at, line)
			p.segments[len(p.segments)-1].follow = true
			p.of, p.itemIndent, p.items = of, indent, 1
			return
		}
	}
	if p.of != "" {
		if indent == p.itemIndent && startsItem(p.of, text[indent:]) {
			if p.full(at) {
				p.close(at, line)
			}
			p.items++
			return
		}
		if indent > 0 || !startsItem("", text) {
			return
		}
		p.close(at, line)
		p.of = ""
	}
	if !startsItem("", text) {
		return
	}
	key, rest, isKey := strings.Cut(text, ":")
	known := isKey && isDocumentKey(key) && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
	if at > p.start && (known || p.full(at)) {
		p.close(at, line)
	}
	p.items++
	if known && (key == "listeners" || key == "upstreams" || key == "policies" || key == "consumers" || key == "routes") && isBlank(rest) {
		p.awaits = key
	}
}

// full tells whether the open segment is large enough to be cut at the offset at.
func (p *splitter) full(at int) bool {
	return p.of != "" && at-p.start >= p.chunkBytes || p.of != "routes" && p.items >= chunkKeys
}

// startsItem tells whether an item starts with the text: for routes "- ", for others what can start a key. A dash there
// belongs to a list right under its key, and a bracket closes one that was opened in a line above.
func startsItem(of, text string) bool {
	if of == "routes" {
		return isMarker(text, "-")
	}
	return text != "" && strings.IndexByte("-:}],{[&*!|>%@`#\t ", text[0]) < 0
}

// close ends the open segment before the line that starts at the offset at.
func (p *splitter) close(at, line int) {
	if at > p.start && p.filled {
		p.segments = append(p.segments, segment{
			text: p.text[p.start:at], linesBefore: p.startLine, of: p.of, items: p.items, itemIndent: p.itemIndent,
		})
	}
	p.start, p.startLine, p.items, p.filled = at, line, 0, false
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
