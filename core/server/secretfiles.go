package server

import (
	"os"
	"syscall"
	"time"
)

// stamp tells whether anybody has written a file or put another in its place, without reading it. The zero stamp is that of a file that
// is not there.
type stamp struct {
	device, inode   uint64
	size            int64
	written, change syscall.Timespec // change: of the inode, which nobody can set back
	young           bool             // it may be written again within what its file system can tell apart
}

const (
	stampRest        = time.Second     // after which a write leaves another stamp, and for which files are let be that somebody may be writing
	secretFilesEvery = 5 * time.Second // between looks at the stamps
)

// stampOf looks at the file at path, through links.
func stampOf(path string, now time.Time) stamp {
	at, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	s, ok := at.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{size: at.Size(), young: true}
	}
	age := now.Sub(time.Unix(s.Ctim.Unix())) // below 0 by another host's clock
	return stamp{device: s.Dev, inode: s.Ino, size: s.Size, written: s.Mtim, change: s.Ctim, young: age >= 0 && age < stampRest}
}

// secretFiles are the files that secrets were read from, each as it was just before. One goroutine uses them.
type secretFiles map[string]stamp

// note remembers a file that is read now. What is read twice counts as it was first.
func (f secretFiles) note(path string) {
	if _, known := f[path]; !known {
		f[path] = stampOf(path, time.Now())
	}
}

// now are the same files as they are.
func (f secretFiles) now() secretFiles {
	at, all := time.Now(), make(secretFiles, len(f))
	for path := range f {
		all[path] = stampOf(path, at)
	}
	return all
}

// changed says whether one may be another than it was. A stamp that was young tells nothing.
func (f secretFiles) changed(now secretFiles) bool {
	for path, was := range f {
		if is := now[path]; was.young || is != was {
			return true
		}
	}
	return false
}

// filesChanged says whether a file may hold another secret than the one that was read, and is at rest. It gives when to ask again.
func (w *secretsWatch) filesChanged(every time.Duration) (bool, time.Duration) {
	if len(w.files) == 0 {
		return false, 0
	}
	now := w.files.now()
	switch {
	case !w.files.changed(now):
		w.moved = nil
		return false, every
	case w.moved == nil || w.moved.changed(now):
		w.moved = now
		return false, min(every, stampRest)
	}
	w.moved = nil
	return true, every
}
