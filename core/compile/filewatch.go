package compile

import (
	"errors"
	"fmt"
	"os"
)

// fileWatch knows how a file was found, and tells when another is there whose writing has ended. One goroutine uses it.
type fileWatch struct {
	read    os.FileInfo // as it was read, right or wrong; nil: it was not, or is not there
	changed os.FileInfo // as it was seen to be another; nil: it is not
}

var errUnchanged = errors.New("the file is as it was")

// look gives the file at path if it is another than the one that was read, and was the same the time before: it is at rest. With now that is
// not waited for. The error is errUnchanged if there is nothing new to say of it. Who has read it calls took.
func (w *fileWatch) look(path string, now bool) (os.FileInfo, error) {
	at, err := os.Stat(path)
	if err == nil && !at.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		w.read, w.changed = nil, nil
		return nil, fmt.Errorf("cannot read %q: %w", path, err)
	}
	switch {
	case sameFile(at, w.read):
		return nil, errUnchanged
	case !now && !sameFile(at, w.changed):
		w.changed = at
		return nil, errUnchanged
	}
	return at, nil
}

// still says whether the file at path, which was read since, is as it was at that look. If not it is being written, and for another look.
func (w *fileWatch) still(path string, at os.FileInfo) bool {
	if after, err := os.Stat(path); err != nil || !sameFile(after, at) {
		w.changed = nil
		return false
	}
	return true
}

// took says that the file was read as it is at that look.
func (w *fileWatch) took(at os.FileInfo) { w.read, w.changed = at, nil }

// sameFile says whether nobody has written a file between two looks at it; b may be nil: there was none before.
func sameFile(a, b os.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
