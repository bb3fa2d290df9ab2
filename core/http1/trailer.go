package http1

import (
	"bytes"

	"github.com/sluice-gateway/sluice/core"
)

const (
	maxTrailerBytes = 8 << 10
	maxTrailerLines = 64
)

// trailer collects the trailer section of a chunked body (RFC 9112, 7.1.2).
type trailer struct {
	lines []byte // what is kept, then the line that is not whole yet
	start int    // of that line
	count int    // lines read, dropped ones included
	bytes int    // likewise
}

func (t *trailer) reset() { *t = trailer{lines: t.lines[:0]} }

// read takes b up to the end of a line. last says that this was the empty line at the end.
func (t *trailer) read(b []byte) (n int, last bool, f fault) {
	n = bytes.IndexByte(b, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(b)
	}
	if t.bytes += n; t.bytes > maxTrailerBytes {
		return n, false, faultTrailerTooLarge
	}
	t.lines = append(t.lines, b[:n]...)
	if !whole {
		return n, false, faultNone
	}
	line := t.lines[t.start:]
	if string(line) == "\r\n" {
		t.lines = t.lines[:t.start]
		return n, true, faultNone
	}
	if t.count++; t.count > maxTrailerLines {
		return n, false, faultTrailerTooLarge
	}
	keep, f := judgeTrailer(line)
	if !keep {
		t.lines = t.lines[:t.start]
	}
	t.start = len(t.lines)
	return n, false, f
}

// judgeTrailer checks one line. Framing and routing fields are refused, for somebody is being deceived; others that
// have no place in a trailer are dropped.
func judgeTrailer(line []byte) (keep bool, f fault) {
	colon, id, f := scanName(line, 0)
	if f == faultNone {
		_, f = endOfLine(line, core.ScanText(line, colon+1), faultValue)
	}
	if f != faultNone {
		return false, faultTrailer
	}
	name := line[:colon]
	switch id {
	case core.FieldContentLength, core.FieldTransferEncoding, core.FieldHost:
		return false, faultTrailerForbidden
	case core.FieldOther:
		return core.MayTrail(name), faultNone
	case lookAlike:
		if core.Resembles(name) == core.ResemblesFraming {
			return false, faultTrailerForbidden
		}
		return core.MayTrail(name), faultNone
	}
	return core.UntrailedFields>>id&1 == 0, faultNone
}
