package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// segment is a piece of what is sent at once.
type segment struct {
	pause time.Duration // before it is sent
	data  []byte
}

// readHTTPFile reads exact bytes written in a readable way. Each line is sent with CR LF, but for the last one, which is
// sent as it stands unless it is empty: a head ends with an empty line, a body does not. In a line
//
//	\r \n \t \0 \\ \xNN   stand for that byte,
//	\ at the end          leaves out the line's CR LF,
//	\pause [DURATION]     alone in a line, sends what follows 50 ms later, in a packet of its own,
//	\repeat N TEXT        alone in a line, sends TEXT N times, without a line's end.
//
// $NAME is replaced as in configuration.
func (c *call) readHTTPFile(name string) ([]segment, error) {
	text, err := os.ReadFile(c.ts.MkAbs(name))
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", name, err)
	}
	segments, err := compileHTTP(c.expand(string(text)))
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", name, err)
	}
	return segments, nil
}

func compileHTTP(text string) ([]segment, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	segments := []segment{{}}
	for i, line := range lines {
		last := &segments[len(segments)-1]
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case `\pause`:
			pause := 50 * time.Millisecond
			if rest != "" {
				d, err := time.ParseDuration(rest)
				if err != nil {
					return nil, fmt.Errorf("line %d: %w", i+1, err)
				}
				pause = d
			}
			segments = append(segments, segment{pause: pause})
		case `\repeat`:
			count, text, _ := strings.Cut(rest, " ")
			n, err := strconv.Atoi(count)
			if err != nil || n < 0 || n > 1<<26 {
				return nil, fmt.Errorf("line %d: bad count %q", i+1, count)
			}
			unit, _, err := unescape(text)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			last.data = append(last.data, bytes.Repeat(unit, n)...)
		default:
			data, joined, err := unescape(line)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			last.data = append(last.data, data...)
			if !joined && (i < len(lines)-1 || line == "") {
				last.data = append(last.data, "\r\n"...)
			}
		}
	}
	return segments, nil
}

// unescape returns the bytes for which a line stands, and whether the line's end is left out.
func unescape(line string) (data []byte, joined bool, err error) {
	line, joined = cutJoin(line)
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' {
			data = append(data, line[i])
			continue
		}
		i++
		if i == len(line) {
			return nil, false, fmt.Errorf("a backslash escapes nothing")
		}
		switch line[i] {
		case 'r':
			data = append(data, '\r')
		case 'n':
			data = append(data, '\n')
		case 't':
			data = append(data, '\t')
		case '0':
			data = append(data, 0)
		case '\\':
			data = append(data, '\\')
		case 'x':
			if i+2 >= len(line) {
				return nil, false, fmt.Errorf(`\x wants two digits`)
			}
			b, err := strconv.ParseUint(line[i+1:i+3], 16, 8)
			if err != nil {
				return nil, false, fmt.Errorf(`bad \x%s`, line[i+1:i+3])
			}
			data = append(data, byte(b))
			i += 2
		default:
			return nil, false, fmt.Errorf(`unknown escape \%c`, line[i])
		}
	}
	return data, joined, nil
}

// cutJoin cuts a final backslash that is not itself escaped.
func cutJoin(line string) (string, bool) {
	slashes := len(line) - len(strings.TrimRight(line, `\`))
	if slashes%2 == 1 {
		return line[:len(line)-1], true
	}
	return line, false
}

func joinSegments(segments []segment) []byte {
	var all []byte
	for _, s := range segments {
		all = append(all, s.data...)
	}
	return all
}

// requestMethods finds the methods of the requests in sent bytes: an answer to HEAD has no body.
func requestMethods(sent []byte) []string {
	form := regexp.MustCompile(`^([A-Z]+) \S+ HTTP/1\.[01]\r?\n?$`)
	var methods []string
	for line := range bytes.Lines(sent) {
		if !bytes.Contains(line, []byte(" HTTP/1.")) { // with the race detector a regexp takes seconds for a long body
			continue
		}
		if m := form.FindSubmatch(line); m != nil {
			methods = append(methods, string(m[1]))
		}
	}
	return methods
}
