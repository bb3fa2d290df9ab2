// Package handover is what passes between a gateway and the process that takes its place: listening sockets under their
// names, state in parts, and word of how either fares.
//
// The two ends of a Pair are a seqpacket(7) socket: a packet is a JSON object with a kind, and the descriptors that belong to
// it. Kinds that a version does not know are ignored, so that versions may differ. In their order:
//
//	hello     from the new process: who it is, and that it wants everything
//	sockets   from the old one, as often as needed: names, and a descriptor for each
//	state     the parts of the state in a memfd(2)
//	end       that was all
//	left      from the new one: names of sockets that it has no use for
//	taken     it accepts connections; or failed, and why
//	report    from the old one while it drains
//	state     once more: what it has counted since the first one
//
// The old process's end closes when it ends, however it does.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// packetBytes bounds a packet, fdsPerPacket the descriptors with it (the kernel's own bound is 253).
	packetBytes  = 64 << 10
	fdsPerPacket = 64
	// maxNameBytes bounds the name of a socket, so that a packet holds fdsPerPacket of them.
	maxNameBytes = 512
	// maxErrorBytes bounds what is told of a failure.
	maxErrorBytes = 16 << 10
	// maxReasonBytes bounds the word for it.
	maxReasonBytes = 64
	// maxSockets bounds what is taken over.
	maxSockets = 1 << 16
)

// The kinds of packets.
const (
	kindHello   = "hello"
	kindSockets = "sockets"
	kindState   = "state"
	kindEnd     = "end"
	kindLeft    = "left"
	kindTaken   = "taken"
	kindFailed  = "failed"
	kindReport  = "report"
)

// packet is any of them; what a kind does not use is left out.
type packet struct {
	Kind   string   `json:"kind"`
	Hello  *Hello   `json:"hello,omitempty"`
	Names  []string `json:"names,omitempty"`
	Error  string   `json:"error,omitempty"`
	Reason string   `json:"reason,omitempty"` // a word for Error; versions before it had one leave it out
	Report *Report  `json:"report,omitempty"`
}

// Hello says who a process is. What a version before did not tell yet is zero.
type Hello struct {
	PID        int       `json:"pid"`
	Version    string    `json:"version"`
	Process    int       `json:"process,omitempty"`    // its number in the chain of upgrades; the first is 1
	Generation int       `json:"generation,omitempty"` // of the configuration that it serves
	Started    time.Time `json:"started,omitzero"`
}

// maxNumber bounds the numbers of processes and generations.
const maxNumber = 1 << 40

// known is h without what cannot be.
func (h Hello) known() Hello {
	if h.Process < 0 || h.Process > maxNumber {
		h.Process = 0
	}
	if h.Generation < 0 || h.Generation > maxNumber {
		h.Generation = 0
	}
	return h
}

// Report is how far a draining process is.
type Report struct {
	Connections int       `json:"connections"`
	Exchanges   int       `json:"exchanges"`
	Tunnels     int       `json:"tunnels"` // open ones, passages among them
	Since       time.Time `json:"since"`   // when it stopped to accept
	Until       time.Time `json:"until"`   // when it ends at the latest; with tunnels, when these do
}

// Socket is a listening socket on its way to another process.
type Socket struct {
	Name string
	FD   int
}

// CloseAll closes sockets that go nowhere.
func CloseAll(all []Socket) {
	for _, s := range all {
		_ = unix.Close(s.FD)
	}
}

// Pair is the old process's side: its own end, and the one that processes inherit. One goroutine at a time uses it.
type Pair struct {
	conn   *net.UnixConn
	theirs *os.File
}

// NewPair opens both ends. The pair serves for all attempts at an upgrade, one after the other.
func NewPair() (*Pair, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "handover")
	conn, err := connOf(os.NewFile(uintptr(fds[0]), "handover"))
	if err != nil {
		_ = theirs.Close()
		return nil, err
	}
	return &Pair{conn, theirs}, nil
}

// connOf makes a connection of a descriptor, which it closes.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("cannot use the socket of a handover: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("cannot use the socket of a handover: it is no unix socket")
	}
	return u, nil
}

// Theirs is the end that the new process inherits. It stays the pair's.
func (p *Pair) Theirs() *os.File { return p.theirs }

// Close closes both ends.
func (p *Pair) Close() {
	_ = p.conn.Close()
	p.CloseTheirs()
}

// CloseTheirs closes this process's copy of the other end: from then on the new process alone has it.
func (p *Pair) CloseTheirs() { _ = p.theirs.Close() }

// Flush throws away what an attempt that failed has left in either direction, descriptors included: they would keep sockets
// open that nobody accepts from.
func (p *Pair) Flush() error {
	for _, end := range []syscall.Conn{p.conn, p.theirs} {
		r, err := end.SyscallConn()
		if err != nil {
			return fmt.Errorf("cannot clear the socket of a handover: %w", err)
		}
		if err := r.Control(discard); err != nil {
			return fmt.Errorf("cannot clear the socket of a handover: %w", err)
		}
	}
	return nil
}

// discard reads without waiting until nothing is left.
func discard(fd uintptr) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4*fdsPerPacket))
	for {
		n, rights, _, _, err := unix.Recvmsg(int(fd), b[:], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 { // nothing is left, or nobody is at the other end
			return
		}
		closeFDs(descriptors(oob[:rights]))
	}
}

// descriptors reads those that came with a packet.
func descriptors(oob []byte) (all []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func send(c *net.UnixConn, p *packet, fds ...int) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if len(b) > packetBytes {
		return fmt.Errorf("a packet of %d bytes is larger than %d", len(b), packetBytes)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// receive waits for a packet. The descriptors are the caller's.
func receive(c *net.UnixConn) (p packet, fds []int, err error) {
	b := make([]byte, packetBytes)
	oob := make([]byte, unix.CmsgSpace(4*fdsPerPacket))
	n, got, flags, _, err := c.ReadMsgUnix(b, oob)
	if errors.Is(err, io.EOF) {
		err = errGone
	}
	if err != nil {
		return p, nil, err
	}
	fds = descriptors(oob[:got])
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("a packet is too large, or came with too many descriptors")
	default:
		err = json.Unmarshal(b[:n], &p)
	}
	if err != nil {
		closeFDs(fds)
		return p, nil, err
	}
	return p, fds, nil
}

var errGone = errors.New("the other process is gone")

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
