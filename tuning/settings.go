package tuning

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const heading = "# Written by sluice tune --apply; sluice tune --revert takes it back. Change other files, not this one."

// setting is one sysctl of the file: what it was, and what it is set to.
type setting struct{ key, before, value string }

// settings are the file of sysctl.d, sorted by name.
type settings struct{ settings []setting }

// with adds changes. What a sysctl was before the first of them is kept.
func (s settings) with(changes []Change) settings {
	next := settings{slices.Clone(s.settings)}
	for _, c := range changes {
		i := slices.IndexFunc(next.settings, func(have setting) bool { return have.key == c.Key })
		if i < 0 {
			next.settings = append(next.settings, setting{c.Key, c.From, c.To})
		} else {
			next.settings[i].value = c.To
		}
	}
	slices.SortFunc(next.settings, func(a, b setting) int { return strings.Compare(a.key, b.key) })
	return next
}

// text is the file; "" where it would set nothing.
func (s settings) text() string {
	if len(s.settings) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(heading + "\n")
	for _, one := range s.settings {
		fmt.Fprintf(&b, "%s%s = %s\n%s = %s\n", before, one.key, one.before, one.key, one.value)
	}
	return b.String()
}

// parseSettings reads what text has written, and nothing else: keys of the table, each with the line that keeps what it was.
func parseSettings(text string) (s settings, err error) {
	lines := strings.Split(text, "\n")
	if lines[0] != heading {
		return s, errors.New("its first line is another")
	}
	for lines = lines[1:]; len(lines) > 0; lines = lines[2:] {
		kept, ok := strings.CutPrefix(lines[0], before)
		if !ok || len(lines) < 2 {
			return s, fmt.Errorf("%.80q does not keep what it was", lines[0])
		}
		key, was, ok := strings.Cut(kept, " = ")
		again, value, ok2 := strings.Cut(lines[1], " = ")
		known := slices.ContainsFunc(sysctls[:], func(e entry) bool { return e.id == key })
		if !ok || !ok2 || key != again || !known || !isValue(was) || !isValue(value) {
			return s, fmt.Errorf("%.80q is not understood", lines[1])
		}
		if slices.ContainsFunc(s.settings, func(have setting) bool { return have.key == key }) {
			return s, fmt.Errorf("%s is set twice", key)
		}
		s.settings = append(s.settings, setting{key, was, value})
	}
	return s, nil
}

// isValue says whether a text is of numbers, as all values that we set are.
func isValue(text string) bool {
	return text != "" && len(text) <= maxValueBytes && strings.Trim(text, "0123456789 ") == "" && strings.TrimSpace(text) == text
}

// lineDiff are the lines of which one text has more than the other: both are sorted sets of lines, so that is all there is to say.
func lineDiff(from, to string) (diff []string) {
	a, b := lines(from), lines(to)
	for _, line := range a {
		if !slices.Contains(b, line) {
			diff = append(diff, "-"+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			diff = append(diff, "+"+line)
		}
	}
	return diff
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }
