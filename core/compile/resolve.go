package compile

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/discovery"
)

// Source is where endpoints come from that stand in no configuration: a name, or a file.
type Source struct {
	Name      string // host, srv:name, or the path of a file
	File      bool
	Endpoints int       // that are known
	Found     time.Time // when they were last known anew; zero: never
	Next      time.Time // when a name is asked for again; zero for a file
	Failures  uint64    // since it was first in a configuration
	Problem   string    // why it was not known anew at the last try; "": it was
}

// watchedName is a name that is asked for again and again, on a goroutine of its own.
type watchedName struct {
	name   *discovery.Name    // its goroutine's
	cancel context.CancelFunc // ends that; nil: it has not begun

	targets []discovery.Target // under discovered.mu, as is source
	source  Source
}

func resolverSettings(c *config.Config, u *config.Upstream) discovery.Settings {
	s := discovery.Settings{Servers: u.Resolve.Servers, Timeout: u.Resolve.Timeout}
	if len(s.Servers) == 0 {
		s.Servers = c.Resolvers
	}
	switch u.Resolve.Family {
	case "v4":
		s.Family = discovery.V4
	case "v6":
		s.Family = discovery.V6
	}
	return s
}

// watch makes a name to be asked for. It goes on from before, which may be nil and is not used any more, or from what is inherited.
func (d *discovered) watch(name string, u *config.Upstream, before *watchedName, inherited []discovery.Target) *watchedName {
	w := &watchedName{source: Source{Name: name}}
	s := discovery.Schedule{Every: u.Resolve.Every, Min: u.Resolve.Min, Max: u.Resolve.Max}
	if service, ok := discovery.CutService(name); ok {
		w.name = discovery.NewService(d.resolver, s, service, time.Now)
	} else {
		w.name = discovery.NewHost(d.resolver, s, name, time.Now)
	}
	if before != nil {
		w.name.Adopt(before.name)
		w.source = before.source
	} else {
		w.name.Recall(inherited)
	}
	w.targets = w.name.Targets()
	w.source.Endpoints = len(w.targets)
	return w
}

// find makes watched names. It waits for those of which nothing is known, all at once. The old ones are not used any more with anew; else
// they stay, and only those that they lack are made.
func (d *discovered) find(ctx context.Context, wanted map[string]bool, u *config.Upstream, old map[string]*watchedName, anew bool) map[string]*watchedName {
	names := map[string]*watchedName{}
	var inherited map[string][]discovery.Target
	if anew && d.inherited != nil { // else it is not this goroutine's
		inherited = d.inherited.Names
	}
	var under sync.WaitGroup
	for name := range wanted {
		before := old[name]
		if before != nil && !anew {
			continue
		}
		w := d.watch(name, u, before, inherited[name])
		if names[name] = w; len(w.targets) > 0 {
			continue
		}
		under.Go(func() {
			w.name.Look(ctx)
			if ctx.Err() == nil {
				d.note(w)
			}
		})
	}
	under.Wait()
	return names
}

// note takes over what w's name has found. The caller holds d.mu, or nobody else knows w.
func (d *discovered) note(w *watchedName) {
	w.targets = w.name.Targets()
	s := &w.source
	before := s.Problem
	s.Endpoints, s.Found, s.Next, s.Problem = len(w.targets), w.name.Resolved(), w.name.Due(), ""
	switch err := w.name.Err(); {
	case err != nil:
		s.Failures++
		if s.Problem = err.Error(); before == "" {
			d.registry.log.Warn("cannot resolve endpoint: its last addresses stay; see resolvectl query and /etc/resolv.conf, or the servers of resolve", "upstream", d.upstream.Name, "host", s.Name, "error", err)
		}
	case before != "":
		d.registry.log.Info("endpoint resolves again", "upstream", d.upstream.Name, "host", s.Name)
	}
}

// follow asks for a name whenever it is due, until ctx ends or the name is not wanted any more. The caller holds d.mu, and d.quit is set.
func (d *discovered) follow(ctx context.Context, w *watchedName) {
	ctx, w.cancel = context.WithCancel(ctx)
	d.done.Go(func() {
		defer w.cancel()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			timer.Reset(max(0, time.Until(w.name.Due())))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			changed := w.name.Look(ctx)
			d.mu.Lock()
			if ctx.Err() != nil {
				d.mu.Unlock()
				return
			}
			if d.note(w); changed {
				d.assign()
				d.registry.log.Info("upstream resolves to other addresses", "upstream", d.upstream.Name, "host", w.source.Name, "endpoints", len(d.upstream.Endpoints()))
			}
			d.mu.Unlock()
		}
	})
}

// Sources are where endpoints of an upstream come from that do not stand in the configuration, names first. It may be called from any
// goroutine.
func (c *Compiled) Sources(name string) (list []Source) {
	d := c.found[name]
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[string]bool{}
	if d.all != nil {
		for i := range d.all.Endpoints {
			key, _, ok := nameOf(d.all.Endpoints[i].Address)
			if w := d.names[key]; ok && w != nil && !seen[key] {
				seen[key] = true
				list = append(list, w.source)
			}
		}
	}
	for _, w := range d.files {
		list = append(list, w.source)
	}
	return list
}
