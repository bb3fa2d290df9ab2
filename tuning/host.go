package tuning

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxFileBytes bounds what is read of one file; /proc/net/netstat, the longest of them, has some 3 KiB.
	maxFileBytes = 64 << 10
	// maxEntries bounds the entries of a folder that are looked at: interrupts, devices, queues.
	maxEntries = 4096
	// maxValueBytes is how much of a value is shown.
	maxValueBytes = 120
)

// errMisshapen says that a file is not as the kernel writes it.
var errMisshapen = errors.New("it is not as the kernel writes it")

// Host is a host as its /proc and /sys show it. It reads anew at each question and may be used by several goroutines.
type Host struct {
	// Files is the host's root folder. Symbolic links must not lead out of it: os.Root.FS keeps them in.
	Files fs.FS
	// Device tells of a network device what only the driver knows; nil: nothing, as of a recorded host.
	Device func(name string) (Device, error)
}

// Device is what a driver tells of its network device.
type Device struct {
	RxRing, RxRingMost int  // descriptors in the receive ring of a queue, and the most that it takes; 0: it has none
	GRO, TSO           bool // receive and send offloads
}

// read gives a file's text without white space at its ends. What is not a regular file, too long or no text is refused.
func (h *Host) read(name string) (string, error) {
	info, err := fs.Stat(h.Files, name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its other end
		return "", fmt.Errorf("cannot read %q: %w", name, errMisshapen)
	}
	f, err := h.Files.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if len(b) > maxFileBytes || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f }) {
		return "", fmt.Errorf("cannot read %q: %w", name, errMisshapen)
	}
	return text, nil
}

// line gives a file of one line, with single spaces between its words.
func (h *Host) line(name string) (string, error) {
	text, err := h.read(name)
	if err == nil && (text == "" || strings.Contains(text, "\n") || len(text) > maxValueBytes) {
		err = fmt.Errorf("cannot read %q: %w", name, errMisshapen)
	}
	return strings.Join(strings.Fields(text), " "), err
}

// number gives a file that holds one number and nothing else.
func (h *Host) number(name string) (uint64, error) {
	text, err := h.line(name)
	if err != nil {
		return 0, err
	}
	return parseNumber(text)
}

// parseNumber reads a decimal number; one that is too large for the type is as large as can be.
func parseNumber(text string) (uint64, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, errMisshapen
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return math.MaxUint64, nil
	}
	return n, nil
}

// sysctl gives the value of net.core.somaxconn and the like. Dots stand for slashes, as no key that we know has one in a name.
func (h *Host) sysctl(key string) (string, error) { return h.line(sysctlFile(key)) }

func sysctlFile(key string) string { return "proc/sys/" + strings.ReplaceAll(key, ".", "/") }

// entries lists the names in a folder, in order; none where it cannot be read.
func (h *Host) entries(folder string) (names []string) {
	list, err := fs.ReadDir(h.Files, folder)
	if err != nil {
		return nil
	}
	for _, e := range list[:min(len(list), maxEntries)] {
		names = append(names, e.Name())
	}
	return names
}

// columns finds the line that begins with the word and gives the rest of it.
func columns(text, word string) []string {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == word {
			return f[1:]
		}
	}
	return nil
}

// field is the number that stands alone, or before its unit, after a word at the start of a line.
func field(text, word string) (uint64, error) {
	f := columns(text, word)
	if len(f) == 0 {
		return 0, errMisshapen
	}
	return parseNumber(f[0])
}

// kernel is the release of the kernel.
func (h *Host) kernel() string {
	text, err := h.line("proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return text
}

// version takes major and minor from a release such as 6.1.0-18-amd64.
func version(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	second, _, _ := strings.Cut(rest, ".")
	second, _, _ = strings.Cut(second, "-")
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil && major >= 0 && minor >= 0
}

// cpus are the numbers of the processors that this process may run on; none where the host does not tell.
func (h *Host) cpus() []int {
	text, err := h.read("proc/self/status")
	if err != nil {
		return nil
	}
	f := columns(text, "Cpus_allowed_list:")
	if len(f) != 1 {
		return nil
	}
	list, err := parseList(f[0])
	if err != nil {
		return nil
	}
	return list
}

// maxCPUs bounds the numbers of a list of processors.
const maxCPUs = 8192

// parseList reads a list such as 0-3,8, with each number once and in order.
func parseList(text string) (list []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		a, err := parseNumber(low)
		b := a
		if err == nil && isRange {
			b, err = parseNumber(high)
		}
		if err != nil || a > b || b >= maxCPUs {
			return nil, errMisshapen
		}
		for n := a; n <= b; n++ {
			list = append(list, int(n))
		}
		if len(list) > maxCPUs {
			return nil, errMisshapen
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// masked says whether a mask of processors such as 00000000,0000000f has any.
func masked(text string) bool { return strings.Trim(text, "0,") != "" }

// devices are the network devices that have hardware behind them.
func (h *Host) devices() (names []string) {
	for _, name := range h.entries("sys/class/net") {
		if _, err := fs.Stat(h.Files, path.Join("sys/class/net", name, "device")); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// queues are the names of a device's queues of one direction, rx or tx.
func (h *Host) queues(device, direction string) (names []string) {
	for _, name := range h.entries(path.Join("sys/class/net", device, "queues")) {
		if strings.HasPrefix(name, direction+"-") {
			names = append(names, name)
		}
	}
	return names
}
