package tuning

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// atLeast wants a number of n or more.
func atLeast(n uint64) judge {
	return numeric("at least "+strconv.FormatUint(n, 10), n, func(have uint64) bool { return have >= n })
}

// atMost wants a number of n or less.
func atMost(n uint64) judge {
	return numeric("at most "+strconv.FormatUint(n, 10), n, func(have uint64) bool { return have <= n })
}

func numeric(wanted string, n uint64, good func(uint64) bool) judge {
	return func(h *Host, id string) verdict {
		return judgeText(h, id, wanted, func(text string) (bool, string, error) {
			have, err := parseNumber(text)
			return err == nil && good(have), strconv.FormatUint(n, 10), err
		})
	}
}

// oneOf wants one of some values, the first where it is another.
func oneOf(values ...string) judge {
	return func(h *Host, id string) verdict {
		return judgeText(h, id, strings.Join(values, " or "), func(text string) (bool, string, error) {
			_, err := parseNumber(text)
			return slices.Contains(values, text), values[0], err
		})
	}
}

// bits wants all bits of a mask set, and leaves the others as they are.
func bits(mask uint64) judge {
	return func(h *Host, id string) verdict {
		return judgeText(h, id, strconv.FormatUint(mask, 10)+" among its bits", func(text string) (bool, string, error) {
			have, err := parseNumber(text)
			return have&mask == mask, strconv.FormatUint(have|mask, 10), err
		})
	}
}

// lastAtLeast wants the last of three numbers to be n or more, and leaves the others as they are.
func lastAtLeast(n uint64) judge {
	last := strconv.FormatUint(n, 10)
	return func(h *Host, id string) verdict {
		return judgeText(h, id, "... ... at least "+last, func(text string) (bool, string, error) {
			f := strings.Fields(text)
			if len(f) != 3 {
				return false, "", errMisshapen
			}
			for _, x := range f {
				if _, err := parseNumber(x); err != nil {
					return false, "", err
				}
			}
			have, err := parseNumber(f[2])
			return have >= n, f[0] + " " + f[1] + " " + last, err
		})
	}
}

// ports wants a range of so many port numbers, and else sets the one given.
func ports(least uint64, set string) judge {
	return func(h *Host, id string) verdict {
		return judgeText(h, id, "at least "+strconv.FormatUint(least, 10)+" ports", func(text string) (bool, string, error) {
			from, to, _ := strings.Cut(text, " ")
			a, err := parseNumber(from)
			b, err2 := parseNumber(to)
			if err = errors.Join(err, err2); err != nil || b < a || b > 65535 {
				return false, "", errMisshapen
			}
			return b-a+1 >= least, set, nil
		})
	}
}

// judgeText reads a sysctl and has it judged: whether it is good, and what it should be set to. A text that the kernel would not
// have written is neither good nor bad.
func judgeText(h *Host, id, wanted string, good func(text string) (bool, string, error)) verdict {
	text, err := h.sysctl(id)
	if err != nil {
		return unreadable(err, wanted)
	}
	ok, set, err := good(text)
	switch {
	case err != nil:
		return verdict{state: Unknown, wanted: wanted}
	case ok:
		return verdict{state: Good, current: text, wanted: wanted}
	}
	return verdict{state: Bad, current: text, wanted: wanted, set: set}
}

// unreadable is the verdict on what cannot be read: there is none, or we are not told.
func unreadable(err error, wanted string) verdict {
	current := "not readable"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		current = "not there"
	case errors.Is(err, errMisshapen):
		current = ""
	}
	return verdict{state: Unknown, current: current, wanted: wanted}
}
