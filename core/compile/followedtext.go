package compile

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"
)

// watchTextEvery is how often a followed text is looked at. What is found changed is read at the next look, when it has not changed again
// meanwhile: who writes it may not be at the end.
const watchTextEvery = time.Second

// followedText is a followed file of text, such as a list of networks, as one configuration has read it. It is followed from Apply on, until
// another configuration is applied, which has read the file anew.
type followedText struct {
	background
	*followed
	// read reads the file. It gives the sum of its text, and what puts that in force and says how much it names; put may be nil for a text
	// whose sum is that in force.
	read func() (sum [sha256.Size]byte, put func() int, err error)

	watch fileWatch         // after start its goroutine's, as is the one below
	sum   [sha256.Size]byte // of the text in force
}

func (f *followedText) start(log *slog.Logger) {
	f.right() // as the configuration has read it
	f.begin(func(ctx context.Context) {
		each(ctx, watchTextEvery, func() { f.look(log) })
	})
}

// look reads the file if it is another than the one that was read, and puts it in force if it is right.
func (f *followedText) look(log *slog.Logger) {
	at, err := f.watch.look(f.Path, false)
	if err == errUnchanged {
		return
	}
	if err != nil {
		f.wrong(log, err)
		return
	}
	sum, put, err := f.read()
	if !f.watch.still(f.Path, at) {
		return
	}
	f.watch.took(at)
	if err != nil {
		f.wrong(log, err)
		return
	}
	again := f.right()
	switch {
	case sum != f.sum:
		f.sum = sum
		log.Info("the file was read again", "kind", f.Kind, "file", f.Path, "entries", put())
	case again:
		log.Info("the file is right again", "kind", f.Kind, "file", f.Path)
	}
}
