package tls

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const (
	// A certificate with chain and key has some KiB; one with a thousand names 30.
	maxPairBytes = 256 << 10
	// The authorities that systems trust are 220 KiB together.
	maxAuthoritiesBytes = 4 << 20
	// A list that names a million serial numbers has about 40 MiB.
	maxRevocationBytes = 64 << 20

	// settleTime is how old a file must be for its stamp to be trusted. A file may be written twice within one tick of the
	// file system's clock, the second time after it was read, and look the same.
	settleTime = 2 * time.Second
)

// stamp tells whether a file is still what was read. The change time is part of it because renewal scripts may preserve
// the modification time.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func stampOf(i fs.FileInfo) stamp {
	s := stamp{size: i.Size(), mtime: i.ModTime().UnixNano()}
	if st, ok := i.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino, s.ctime = uint64(st.Dev), st.Ino, syscall.TimespecToNsec(st.Ctim)
	}
	return s
}

// settled says whether the file had rested long enough at now, when it was read.
func (s stamp) settled(now time.Time) bool {
	return now.UnixNano()-max(s.mtime, s.ctime) > int64(settleTime)
}

// reading is what was in a file, and how to see that it has changed since. The zero value stands for never read.
type reading struct {
	text    []byte
	stamp   stamp
	settled bool
}

// names says whether the file that bears the name now looks like the one that was read. Symbolic links are followed: a
// swapped link leads to another inode.
func (r *reading) names(name string) bool {
	i, err := os.Stat(name)
	return err == nil && stampOf(i) == r.stamp
}

// fresh says whether the file need not be read again.
func (r *reading) fresh(name string) bool { return r.settled && r.names(name) }

// readFile reads a regular file of at most limit bytes. It does not wait for a writer where name is a FIFO.
func readFile(name string, limit int64) (*reading, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, Unreadable(name, err)
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", name, bare(err))
	}
	if !i.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read %q: it is no regular file", name)
	}
	// The stamp is from before the reading: what is written meanwhile changes it.
	r := &reading{stamp: stampOf(i)}
	r.settled = r.stamp.settled(time.Now())
	r.text, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", name, bare(err))
	}
	if int64(len(r.text)) > limit {
		return nil, fmt.Errorf("cannot read %q: it has more than %d KiB", name, limit>>10)
	}
	return r, nil
}

// Unreadable is an error of reading a file with its name and what to look at. That the file is there for who looks need not mean that it is for
// the process.
func Unreadable(name string, err error) error {
	err = bare(err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: a relative path begins at the folder of the configuration file; a unit with PrivateTmp= has a /tmp of its own, one with ProtectHome= sees no /home, /root and /run/user", err)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: the user of the service must be able to read it and to pass all folders above: see namei -l %s; a unit with ProtectHome= sees no /home, /root and /run/user", err, name)
	}
	return fmt.Errorf("cannot read %q: %w", name, err)
}

// bare takes the file's name out of an error, where it would stand twice.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
