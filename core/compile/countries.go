package compile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/ip"
)

// watchCountriesEvery is how often a database is looked at. What is found changed is read at the next look, when it has not changed again
// meanwhile: who writes it may not be at the end.
const watchCountriesEvery = time.Second

// countryFile is a database of countries, which all policies share that name it. It outlives configurations.
type countryFile struct {
	background
	*followed
	countries ip.Countries

	watch fileWatch // after start its goroutine's
}

// countryFile gives that of a path: the one in force, with the table that it has, or a new one, which is read at once.
func (r *Registry) countryFile(c *Compiled, path string) (*countryFile, error) {
	f := c.countries[path]
	if f == nil {
		f = r.countries[path]
	}
	if f == nil {
		f = &countryFile{followed: r.follow(c, "countries", path)}
		if _, err := f.look(context.Background(), true); err != nil {
			return nil, err
		}
	}
	c.countries[path], c.followed[f.followedKey] = f, f.followed
	return f, nil
}

// putCountries starts to watch the databases of c that are new, and ends it for those that it has not.
func (r *Registry) putCountries(c *Compiled) {
	replace(&r.closing, r.countries, c.countries, func(f *countryFile) { f.start(r.log) })
	r.countries = c.countries
}

func (f *countryFile) start(log *slog.Logger) {
	f.begin(func(ctx context.Context) {
		each(ctx, watchCountriesEvery, func() {
			switched, err := f.look(ctx, false)
			if ctx.Err() == nil {
				f.note(log, switched, err)
			}
		})
	})
}

// look reads the file if it is another than the one that was read, and puts it in force if it is right. With now it does not wait for the
// end of writing. The error is errUnchanged if there is nothing new to say of it.
func (f *countryFile) look(ctx context.Context, now bool) (switched bool, err error) {
	at, err := f.watch.look(f.Path, now)
	if err != nil {
		return false, err
	}
	f.watch.took(at)
	t, err := readCountries(ctx, f.Path)
	if err != nil {
		return false, fmt.Errorf("cannot read %q: %w", f.Path, err)
	}
	f.countries.Switch(t)
	return true, nil
}

// note tells the log what look has found, once.
func (f *countryFile) note(log *slog.Logger, switched bool, err error) {
	switch {
	case errors.Is(err, errUnchanged):
	case err != nil:
		f.wrong(log, err)
	case switched:
		f.right()
		log.Info("the database of countries was read again", "file", f.Path, "ranges", f.countries.Table().Len())
	}
}

// addresses makes the policy of kind ip.
func addresses(r *Registry, c *Compiled, p *config.Policy, _ string) (core.Step, error) {
	spec := ip.Spec{Allow: r.networks(c, &p.IP.Allow), Deny: r.networks(c, &p.IP.Deny)}
	if by := p.IP.Countries; by != nil {
		f, err := r.countryFile(c, by.File)
		if err != nil {
			return core.Step{}, err
		}
		spec.Countries, spec.AllowCountries, spec.DenyCountries = &f.countries, by.Allow, by.Deny
		spec.AllowUnknown, spec.DenyUnknown = by.Unknown == "allow", by.Unknown == "deny"
		r.warnOfCountries(f, slices.Concat(by.Allow, by.Deny))
	}
	return core.Step{Request: ip.New(spec)}, nil
}

// warnOfCountries tells of codes under which the database has no network: they may be mistyped, such as UK for GB.
func (r *Registry) warnOfCountries(f *countryFile, codes []string) {
	t := f.countries.Table()
	for _, code := range codes {
		if !t.Has(code) && r.log != nil {
			r.log.Warn("the database of countries has no network of this country", "file", f.Path, "country", code)
		}
	}
}
