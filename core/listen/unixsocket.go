package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPathBytes is what a sockaddr_un holds beside its zero byte.
const maxPathBytes = 107

func (s *Sockets) openUnix(shards int) error {
	path := s.bind.Path
	if len(path) > maxPathBytes {
		return fmt.Errorf("the path has %d bytes, want at most %d", len(path), maxPathBytes)
	}
	var err error
	if s.replaced, err = clearStale(path); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.fds = append(s.fds, fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	if s.file, err = identify(path); err != nil {
		return err
	}
	mode := s.bind.Mode
	if mode == 0 {
		mode = unixDefault
	}
	// Before it listens nobody can connect: there is no instant with a wider mode.
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	if s.deaf = append(s.deaf, 0); !s.bind.Deferred {
		if err := s.listen(); err != nil {
			return err
		}
	}
	return s.addCopies(shards)
}

// addCopies makes so many descriptors of those that are there.
func (s *Sockets) addCopies(shards int) error {
	s.copiesFrom = len(s.fds)
	for len(s.fds) < shards {
		copied, err := unix.FcntlInt(uintptr(s.fds[len(s.fds)%s.copiesFrom]), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.fds = append(s.fds, copied)
	}
	return nil
}

// Replaced says whether Open has removed the file of a unix socket on which nobody listened any more.
func (s *Sockets) Replaced() bool { return s.replaced }

// clearStale removes a socket's file on which nobody listens any more, and nothing else. It says whether there was one.
func clearStale(path string) (removed bool, err error) {
	f, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if f.Mode().Type() != fs.ModeSocket {
		return false, errors.New("a file that is no socket is in the way: move it, or bind the listener to another path")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case unix.ECONNREFUSED:
		err := os.Remove(path)
		return err == nil, err
	case nil, unix.EAGAIN: // EAGAIN: its queue is full
		return false, unix.EADDRINUSE
	default:
		return false, err
	}
}

// fileID tells a socket's file from a later one with the same path. Its time of creation belongs to it, because file
// systems give the inode of a removed file to the next. The zero fileID is no file.
type fileID struct {
	device, inode uint64
	made          syscall.Timespec
}

func identify(path string) (fileID, error) {
	f, err := os.Lstat(path)
	if err != nil {
		return fileID{}, err
	}
	st := f.Sys().(*syscall.Stat_t)
	return fileID{st.Dev, st.Ino, st.Mtim}, nil
}

// String tells the file from all others that bear its path while its socket is open, which holds the inode; "": it is no file.
func (f fileID) String() string {
	if f.inode == 0 {
		return ""
	}
	return fmt.Sprintf("%x.%x", f.device, f.inode)
}

// File names the file of a unix socket among all that have borne its path since the socket was bound, or will while somebody has it
// open; "": Close does not remove it.
func (s *Sockets) File() string { return s.file.String() }

// FileAt is what File was if the file at path is that of the socket; "": there is no file.
func FileAt(path string) string {
	f, err := identify(path)
	if err != nil {
		return ""
	}
	return f.String()
}

// remove unlinks path if it is the file.
func (f *fileID) remove(path string) {
	if f.inode == 0 {
		return
	}
	if now, err := identify(path); err == nil && now == *f {
		_ = os.Remove(path)
	}
	*f = fileID{}
}
