package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// DefaultFile is where Apply writes by default, from the host's root: after what a distribution ships, before 99-sysctl.conf.
const DefaultFile = "/etc/sysctl.d/90-sluice.conf"

// before begins a line that keeps what a sysctl was before: it is a comment to everybody but Revert.
const before = "# before: "

// Change is a sysctl that is not as wanted, and what it is to become.
type Change struct {
	Key  string `json:"key"`
	From string `json:"from"`
	To   string `json:"to"`
	Err  error  `json:"-"` // why it could not be set; nil: it was, or nothing was tried
}

// Applier changes the sysctls of the host whose root folder it has, and can take that back. One at a time may be used on a host.
type Applier struct {
	Root *os.Root
	File string // of sysctl.d, absolute from the root
}

// Plan is what Apply would change, in the order of the report's items, and how the file would differ: lines that begin with + or -.
func (a *Applier) Plan(r *Report) (changes []Change, diff []string, err error) {
	was, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	changes = planned(r)
	next := was.with(changes)
	return changes, lineDiff(was.text(), next.text()), nil
}

// planned are the changes that a report asks for, sorted by name.
func planned(r *Report) (changes []Change) {
	for i := range r.Items {
		if f := &r.Items[i]; f.Set != "" {
			changes = append(changes, Change{Key: f.ID, From: f.Current, To: f.Set})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return changes
}

// Apply writes the file, with what the sysctls were before, and then sets each. What cannot be set now, as in a container, has its
// error in the change, and is set when the host starts next. err says that nothing was changed.
func (a *Applier) Apply(r *Report) (changes []Change, err error) {
	was, err := a.load()
	if err != nil {
		return nil, err
	}
	if changes = planned(r); len(changes) == 0 {
		return nil, nil
	}
	if err := a.store(was.with(changes)); err != nil {
		return nil, err
	}
	for i := range changes {
		changes[i].Err = a.set(changes[i].Key, changes[i].To)
	}
	return changes, nil
}

// Revert gives the sysctls of the file what they were before, those apart that somebody has changed since, and removes the file.
// Where one cannot be set, which its change tells, the file stays, so that it can be tried again.
func (a *Applier) Revert() (changes []Change, err error) {
	was, err := a.load()
	if err != nil {
		return nil, err
	}
	if len(was.settings) == 0 {
		return nil, fmt.Errorf("cannot revert: %q sets nothing that was set by apply", a.File)
	}
	host := Host{Files: a.Root.FS()}
	failed := false
	for _, s := range was.settings {
		c := Change{Key: s.key, To: s.before}
		now, err := host.sysctl(s.key)
		switch {
		case err != nil:
			c.Err = err
		case now == s.before:
			c.From = now
		case now != s.value:
			c.From, c.To = now, now
			c.Err = fmt.Errorf("left alone: it is %q, and was set to %q: %w", now, s.value, ErrChanged)
		default:
			c.From = now
			c.Err = a.set(s.key, s.before)
		}
		failed = failed || c.Err != nil && !errors.Is(c.Err, ErrChanged)
		changes = append(changes, c)
	}
	if failed {
		return changes, nil
	}
	if err := a.Root.Remove(a.name()); err != nil {
		return changes, fmt.Errorf("cannot remove %q: %w", a.File, cause(err))
	}
	return changes, nil
}

// ErrChanged says that a sysctl was changed by somebody else since it was set.
var ErrChanged = errors.New("somebody has changed it since")

func (a *Applier) name() string { return strings.TrimPrefix(path.Clean(a.File), "/") }

// set writes a sysctl, and reads it back: the kernel takes some values only in part.
func (a *Applier) set(key, value string) error {
	f, err := a.Root.OpenFile(sysctlFile(key), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(value + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot set it to %q: %w%s", value, cause(err), remedy(err))
	}
	host := Host{Files: a.Root.FS()}
	if now, err := host.sysctl(key); err != nil || now != value {
		return fmt.Errorf("cannot set it: the kernel has made %q of %q", now, value)
	}
	return nil
}

// remedy says what to do about an error of set.
func remedy(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "; run as root on the host itself"
	case isReadOnly(err):
		return "; in a container, set it on the host or by the container's own sysctl option"
	}
	return ""
}

// cause is an error without the path, which the caller names from the host's root.
func cause(err error) error {
	var failure *fs.PathError
	if errors.As(err, &failure) {
		return failure.Err
	}
	return err
}

func (a *Applier) load() (settings, error) {
	if name := a.name(); !strings.HasPrefix(a.File, "/") || name == "" || !strings.HasSuffix(name, ".conf") {
		return settings{}, fmt.Errorf("cannot use %q: a file of sysctl.d is an absolute path that ends in .conf", a.File)
	}
	host := Host{Files: a.Root.FS()}
	text, err := host.read(a.name())
	if errors.Is(err, fs.ErrNotExist) {
		return settings{}, nil
	}
	if err != nil {
		return settings{}, fmt.Errorf("cannot read %q: %w", a.File, cause(err))
	}
	s, err := parseSettings(text)
	if err != nil {
		return settings{}, fmt.Errorf("cannot use %q, which apply has not written: %w", a.File, err)
	}
	return s, nil
}

// store puts the file in place whole: who reads it meanwhile sees the one before.
func (a *Applier) store(s settings) error {
	name := a.name()
	err := a.Root.MkdirAll(path.Dir(name), 0o755)
	if err == nil {
		temporary := name + ".new"
		_ = a.Root.Remove(temporary) // of a run that was ended
		var f *os.File
		if f, err = a.Root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
			_, err = f.WriteString(s.text())
			err = errors.Join(err, f.Sync(), f.Close())
			if err == nil {
				err = a.Root.Rename(temporary, name)
			}
			if err != nil {
				_ = a.Root.Remove(temporary)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write %q, so nothing is changed: %w%s", a.File, cause(err), remedy(err))
	}
	return nil
}
