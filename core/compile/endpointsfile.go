package compile

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
)

// watchEndpointsEvery is how often a file of endpoints is looked at. What is found changed is read at the next look, when it has not
// changed again meanwhile: who writes it may not be at the end.
const watchEndpointsEvery = 400 * time.Millisecond

// watchedFile is a file of endpoints.
type watchedFile struct {
	spec  config.EndpointsFile // as are those below but the last two, its goroutine's
	watch fileWatch
	sum   [sha256.Size]byte // of the text that endpoints are of

	endpoints []config.Endpoint // as last read well; under discovered.mu, as is source
	source    Source
}

// open reads the files of u. One that was there before keeps its endpoints if it is wrong now.
func (d *discovered) open(u *config.Upstream) (files []*watchedFile) {
	for i := range u.Files {
		w := &watchedFile{spec: u.Files[i], source: Source{Name: u.Files[i].Path, File: true}}
		for _, before := range d.files {
			if before.spec.Path == w.spec.Path {
				w.endpoints, w.source = before.endpoints, before.source
			}
		}
		list, err := w.look(true)
		d.noteFile(w, list, err)
		files = append(files, w)
	}
	return files
}

// look gives the endpoints of the file if it holds others than before. With now it does not wait for the end of writing. The error is
// errUnchanged if there is nothing new to say of it.
func (w *watchedFile) look(now bool) ([]config.Endpoint, error) {
	at, err := w.watch.look(w.spec.Path, now)
	if err != nil {
		return nil, err
	}
	text, err := config.ReadEndpointsFile(w.spec.Path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %w", w.spec.Path, err)
	}
	if !now && !w.watch.still(w.spec.Path, at) {
		return nil, errUnchanged
	}
	w.watch.took(at)
	sum := sha256.Sum256(text)
	if sum == w.sum {
		return nil, nil
	}
	list, problems := w.spec.Read(text)
	if list == nil {
		return nil, fmt.Errorf("%s: %s (%d problems)", problems[0].Pos, problems[0].Message, len(problems))
	}
	w.sum = sum
	return list, nil
}

// noteFile takes over what look has found; list is nil where the endpoints stay. The caller holds d.mu, or nobody else knows w.
func (d *discovered) noteFile(w *watchedFile, list []config.Endpoint, err error) {
	s := &w.source
	log := d.registry.log.With("upstream", d.upstream.Name, "file", s.Name)
	switch {
	case err == errUnchanged:
		return
	case err != nil:
		if s.Problem == err.Error() {
			return // it is still what it was
		}
		s.Failures++
		s.Problem = err.Error()
		log.Error("the file of endpoints is of no use: those known stay in force", "error", err)
		return
	case list != nil:
		w.endpoints = list
		log.Info("the file of endpoints was read", "endpoints", len(list))
	case s.Problem != "":
		log.Info("the file of endpoints is right again")
	}
	s.Problem, s.Found, s.Endpoints = "", time.Now(), len(w.endpoints)
}

// watchFiles reads files when they change.
func (d *discovered) watchFiles(ctx context.Context, files []*watchedFile) {
	each(ctx, watchEndpointsEvery, func() {
		for _, w := range files {
			list, err := w.look(false)
			if err == errUnchanged {
				continue
			}
			d.adopt(ctx, w, list, err)
		}
	})
}

// adopt puts in force what look has found. Names that are new in it are resolved first, so that there is somewhere to go when the old
// endpoints are not there any more.
func (d *discovered) adopt(ctx context.Context, w *watchedFile, list []config.Endpoint, err error) {
	fresh := map[string]*watchedName{}
	if list != nil {
		d.mu.Lock()
		known, u := d.names, d.spec // this goroutine alone changes names
		d.mu.Unlock()
		fresh = d.find(ctx, namesOf(&config.Upstream{Endpoints: list}), u, known, false)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if d.noteFile(w, list, err); list == nil {
		return
	}
	d.all = combine(d.spec, d.files)
	for name, w := range fresh {
		d.names[name] = w
		d.follow(ctx, w)
	}
	wanted := namesOf(d.all)
	for name, w := range d.names {
		if !wanted[name] {
			w.cancel()
			delete(d.names, name)
		}
	}
	d.assign()
}

// combine is u with the endpoints of its files. Of those with one address the first counts.
func combine(u *config.Upstream, files []*watchedFile) *config.Upstream {
	if len(files) == 0 {
		return u
	}
	all := *u
	seen := map[string]bool{}
	all.Endpoints = nil
	add := func(list []config.Endpoint) {
		for i := range list {
			if !seen[list[i].Address] {
				seen[list[i].Address] = true
				all.Endpoints = append(all.Endpoints, list[i])
			}
		}
	}
	add(u.Endpoints)
	for _, w := range files {
		add(w.endpoints)
	}
	return &all
}
