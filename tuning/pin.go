package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CPUs are the numbers of processors, in order and each once.
type CPUs []int

// mostPinned bounds the numbers of processors that a thread can be put on: unix.CPUSet has a bit for each.
const mostPinned = 1024

// ParseCPUs reads a list such as 2-5,8, as CPUs.String and the kernel write it (man 7 cpuset, list format).
func ParseCPUs(text string) (CPUs, error) {
	list, err := parseList(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read the list of processors %q: %w", text[:min(len(text), maxValueBytes)], err)
	}
	return list, nil
}

// String writes the list as the kernel does: 2-5,8.
func (c CPUs) String() string {
	var b strings.Builder
	for i := 0; i < len(c); {
		last := i
		for last+1 < len(c) && c[last+1] == c[last]+1 {
			last++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(c[i]))
		if last > i {
			b.WriteString("-" + strconv.Itoa(c[last]))
		}
		i = last + 1
	}
	return b.String()
}

// set is the list as the kernel takes it.
func (c CPUs) set() (set unix.CPUSet, err error) {
	if len(c) == 0 || c[0] < 0 || c[len(c)-1] >= mostPinned {
		return set, fmt.Errorf("a thread can be put on processors 0 to %d, and on one at least", mostPinned-1)
	}
	for _, cpu := range c {
		set.Set(cpu)
	}
	return set, nil
}

// Allowed are the processors that this process may run on as far as its threads' affinity says, also those that are offline; none
// where the host does not tell.
func (h *Host) Allowed() CPUs { return h.cpus() }

// MayPin says why threads cannot be put on these processors, where the process was allowed others before it pinned itself: one that
// is not there, is offline, or was not allowed. It changes nothing, but tries whether the process may change its affinity at all.
func (h *Host) MayPin(cpus, allowed CPUs) error {
	if _, err := cpus.set(); err != nil {
		return err
	}
	present, online := h.processors("present"), h.processors("online")
	for _, cpu := range cpus {
		switch {
		case present != nil && !slices.Contains(present, cpu):
			return fmt.Errorf("this host has no processor %d: it has %s", cpu, present)
		case online != nil && !slices.Contains(online, cpu):
			return fmt.Errorf("processor %d is offline: write 1 to /sys/devices/system/cpu/cpu%d/online", cpu, cpu)
		case allowed != nil && !slices.Contains(allowed, cpu):
			return fmt.Errorf("processor %d is not among those that the process may use, %s: see CPUAffinity= and AllowedCPUs= of the unit, taskset, and the cpuset of a container",
				cpu, allowed)
		}
	}
	var now unix.CPUSet
	err := unix.SchedGetaffinity(0, &now)
	if err == nil {
		err = unix.SchedSetaffinity(0, &now)
	}
	return pinError(err)
}

// processors reads one of the kernel's lists of all processors; nil where the host does not tell.
func (h *Host) processors(which string) CPUs {
	text, err := h.line("sys/devices/system/cpu/" + which)
	if err != nil {
		return nil
	}
	list, err := parseList(text)
	if err != nil {
		return nil
	}
	return list
}

const (
	// cleanWalks is how often in a row all threads must be found in place: a folder that is read while threads end may leave one out.
	cleanWalks = 2
	// mostWalks bounds the looks at the threads: each but the last has found one that was not in place, and only such ones make others.
	mostWalks = 100
)

// ErrThreads says that threads came into being faster than they could be put in place.
var ErrThreads = errors.New("new threads go on appearing")

// Pin puts every thread of this process on these processors, those also that will be: a thread begins where the one that makes it
// is, and so does a process. Of two calls one must have ended before the other begins. After an error some threads may have moved;
// calling it again with the processors that were in force takes that back.
func Pin(cpus CPUs) error {
	want, err := cpus.set()
	if err != nil {
		return err
	}
	for walk, clean := 0, 0; walk < mostWalks; walk++ {
		moved, err := pinThreads(&want)
		switch {
		case err != nil:
			return pinError(err)
		case moved > 0:
			clean = 0
			continue
		}
		if clean++; clean == cleanWalks {
			return nil
		}
	}
	return fmt.Errorf("cannot put all threads on processors %s: %w", cpus, ErrThreads)
}

// pinThreads walks once over the threads that there are, and counts those that were elsewhere.
func pinThreads(want *unix.CPUSet) (moved int, err error) {
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		thread, err := strconv.Atoi(e.Name())
		if err != nil {
			return moved, fmt.Errorf("cannot read the threads: %w", errMisshapen)
		}
		var has unix.CPUSet
		err = unix.SchedGetaffinity(thread, &has)
		if err == nil && has != *want {
			before := has
			if err = unix.SchedSetaffinity(thread, want); err == nil {
				err = unix.SchedGetaffinity(thread, &has)
			}
			if has != before { // else it is there: processors that are offline, or not in its cpuset, are left out by the kernel
				moved++
			}
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return moved, err
		}
	}
	return moved, nil
}

// pinError says what to do about an error of the kernel.
func pinError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot set the affinity of threads: %w; the unit's drop-in affinity.conf allows sched_setaffinity", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("cannot set the affinity of threads: %w; the cpuset of the process's cgroup leaves it none of these: see AllowedCPUs= of the unit, or the container's own option", err)
	}
	return fmt.Errorf("cannot set the affinity of threads: %w", err)
}
