package systemd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	// maxAddressBytes is what a sockaddr_un holds beside its zero byte.
	maxAddressBytes = 107
	// maxStatusBytes bounds a status; systemd drops a message of more than 4096 bytes whole.
	maxStatusBytes = 1024
	// sendTimeout bounds the wait for a manager whose queue of messages is full.
	sendTimeout = 2 * time.Second
	// sendTries bounds how often a message is sent anew because a signal interrupted it.
	sendTries = 8
)

// Ready tells that the process serves: after its start, and after each Reloading. The status is shown by systemctl.
func (s *Service) Ready(status string) error { return s.tell("READY=1", statusLine(status)) }

// Reloading tells that the configuration is being read anew, until Ready. The clock shows systemd which of its requests
// to reload this one answers.
func (s *Service) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("cannot read the monotonic clock: %w", err)
	}
	return s.tell("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/int64(time.Microsecond), 10))
}

// Stopping tells that the process drains, and then ends. Nothing takes it back.
func (s *Service) Stopping(status string) error { return s.tell("STOPPING=1", statusLine(status)) }

// Status shows a line to whoever asks systemctl.
func (s *Service) Status(status string) error { return s.tell(statusLine(status)) }

// MainPID tells that another process is the service's main one from now on. Only the main process may say so.
func (s *Service) MainPID(pid int) error {
	if pid <= 0 {
		return fmt.Errorf("cannot name a main process: no process has id %d", pid)
	}
	return s.tell("MAINPID=" + strconv.Itoa(pid))
}

// ExtendTimeout asks for at least this much time from now on before the start, reload or stop under way is taken for
// failed. It counts until the next call, and never shortens what the unit allows.
func (s *Service) ExtendTimeout(d time.Duration, status string) error {
	return s.tell("EXTEND_TIMEOUT_USEC="+strconv.FormatInt(max(d.Microseconds(), 1), 10), statusLine(status))
}

// Alive tells the watchdog that the process lives. It is for those who have just made sure of that.
func (s *Service) Alive() error { return s.tell("WATCHDOG=1") }

// statusLine is a status as one line of valid text: systemd would drop another.
func statusLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) > maxStatusBytes {
		text = strings.ToValidUTF8(text[:maxStatusBytes], "") // without the rune that the cut went through
	}
	return "STATUS=" + text
}

// checkAddress says what is wrong with the address of a manager's socket: a path, or an abstract name after @.
func checkAddress(address string) error {
	switch {
	case len(address) > maxAddressBytes:
		return fmt.Errorf("%d bytes, want at most %d", len(address), maxAddressBytes)
	case len(address) < 2 || address[0] != '/' && address[0] != '@':
		return errors.New("want an absolute path, or @ and a name")
	case strings.IndexByte(address, 0) >= 0:
		return errors.New("it holds a zero byte")
	}
	return nil
}

// tell sends lines as one message.
func (s *Service) tell(lines ...string) error {
	if !s.Notified() {
		return nil
	}
	return s.send(strings.Join(lines, "\n"), nil)
}

// send sends one message with descriptors. Each has a socket of its own: it holds nothing between messages, and reaches a
// manager that has been replaced meanwhile.
func (s *Service) send(message string, fds []int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot tell systemd: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(int64(sendTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return fmt.Errorf("cannot tell systemd: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	err = unix.EINTR
	for try := 0; try < sendTries && err == unix.EINTR; try++ {
		// A name that begins with @ is abstract: unix replaces the sign by the zero byte.
		err = unix.Sendmsg(fd, []byte(message), rights, &unix.SockaddrUnix{Name: s.address}, unix.MSG_NOSIGNAL)
	}
	if err != nil {
		first, _, _ := strings.Cut(message, "\n")
		return fmt.Errorf("cannot tell systemd %q on %q: %w", first, s.address, err)
	}
	return nil
}

// maxStoredAtOnce is how many descriptors the kernel takes in a message: SCM_MAX_FD.
const maxStoredAtOnce = 253

// MaxNameBytes bounds the name of a stored descriptor, as systemd does.
const MaxNameBytes = 255

// Store leaves copies of descriptors with systemd, which passes them to the next start of the service, after a crash too,
// among its Sockets under this name. One that is there already is not stored twice. It takes FileDescriptorStoreMax= in the
// unit: without it systemd drops them in silence. They are not watched for errors: a listening socket has none to speak of.
func (s *Service) Store(name string, fds []int) error {
	if !s.Notified() {
		return nil
	}
	if !validName(name) {
		return fmt.Errorf("cannot store sockets with systemd: a name has 1 to %d characters of ASCII but no colon, not %q", MaxNameBytes, name)
	}
	for len(fds) > 0 {
		n := min(len(fds), maxStoredAtOnce)
		if err := s.send("FDSTORE=1\nFDNAME="+name+"\nFDPOLL=0", fds[:n]); err != nil {
			return err
		}
		fds = fds[n:]
	}
	return nil
}

// Forget makes systemd close what it has stored under a name.
func (s *Service) Forget(name string) error {
	if !validName(name) {
		return fmt.Errorf("cannot have systemd forget sockets: it stores none under the name %q", name)
	}
	return s.tell("FDSTOREREMOVE=1", "FDNAME="+name)
}

// Name makes a name for Store of any text: what may not be in one, and %, is escaped as in a URL. Different texts have
// different names. Of a long one it makes a name that Store refuses.
func Name(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c != '%' && nameByte(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func validName(name string) bool {
	for i := range len(name) {
		if !nameByte(name[i]) {
			return false
		}
	}
	return name != "" && len(name) <= MaxNameBytes
}

// nameByte is systemd's fdname_is_valid for a byte; names are separated by colons.
func nameByte(c byte) bool { return c >= ' ' && c < 0x7f && c != ':' }

// Barrier waits until systemd has read all that it was told before, for at most the timeout. An older systemd than 246 does
// not know it, and never answers in time.
func (s *Service) Barrier(timeout time.Duration) error {
	if !s.Notified() {
		return nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("cannot wait for systemd: %w", err)
	}
	defer func() { _ = unix.Close(ends[0]) }()
	err := s.send("BARRIER=1", ends[1:])
	_ = unix.Close(ends[1]) // systemd closes its copy, the last one, when it is so far
	for until := time.Now().Add(timeout); err == nil; {
		left := time.Until(until)
		if left <= 0 {
			return fmt.Errorf("cannot wait for systemd: no answer in %v", timeout)
		}
		var n int
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(ends[0])}}, int(left.Milliseconds())+1)
		if n > 0 { // hung up
			return nil
		}
		if err == unix.EINTR {
			err = nil
		}
	}
	return fmt.Errorf("cannot wait for systemd: %w", err)
}
