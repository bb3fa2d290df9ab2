package compile

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// followedKey names a followed file.
type followedKey struct{ Kind, Path string }

// followed is how a followed file fares. It outlives configurations, as long as one names it, so that its failures are counted on.
type followed struct {
	followedKey

	mu       sync.Mutex
	problem  string // "": none
	failures uint64
}

// FollowedStatus is how a followed file fares: Kind and Path say which. Problem is what is wrong with it as it is now, "" for nothing;
// Failures is how often it was found wrong, or missing, in another way than before.
type FollowedStatus struct {
	Kind, Path, Problem string
	Failures            uint64
}

// follow gives that of a file, which c is to have.
func (r *Registry) follow(c *Compiled, kind, path string) *followed {
	k := followedKey{kind, path}
	f := c.followed[k]
	if f == nil {
		f = r.followed[k]
	}
	if f == nil {
		f = &followed{followedKey: k}
	}
	c.followed[k] = f
	return f
}

// wrong notes why the file is of no use. The log is told once of one reason.
func (f *followed) wrong(log *slog.Logger, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.problem == err.Error() {
		return
	}
	f.problem = err.Error()
	f.failures++
	log.Error("the file is of no use: what was read before stays in force", "kind", f.Kind, "file", f.Path, "error", err)
}

// right notes that the file is in force as it is, and says whether it was wrong before.
func (f *followed) right() (again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again = f.problem != ""
	f.problem = ""
	return again
}

// Followed tells of the followed files of c, in order. It may be called from any goroutine.
func (c *Compiled) Followed() (all []FollowedStatus) {
	for _, k := range slices.SortedFunc(maps.Keys(c.followed), func(a, b followedKey) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Path, b.Path))
	}) {
		f := c.followed[k]
		f.mu.Lock()
		all = append(all, FollowedStatus{f.Kind, f.Path, f.problem, f.failures})
		f.mu.Unlock()
	}
	return all
}
