package compile

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/policy/ip"
)

// watchNetworksEvery is how often a file of networks is looked at. What is found changed is read at the next look, when it has not changed
// again meanwhile: who writes it may not be at the end.
const watchNetworksEvery = time.Second

// networksFile is a file of networks, which all policies of a configuration share that name it. It is followed from Apply on, until another
// configuration is applied, which has read the file anew.
type networksFile struct {
	background
	*followed
	networks listen.FollowedNetworks

	watch fileWatch // after start its goroutine's, as is the one below
	sum   [sha256.Size]byte
}

// networks gives what a list of a policy names; nil: there is none.
func (r *Registry) networks(c *Compiled, list *config.Networks) (all []ip.Networks) {
	if len(list.Prefixes) > 0 {
		all = append(all, listen.NewNetworks(list.Prefixes))
	}
	for i := range list.Files {
		all = append(all, &r.networksFile(c, &list.Files[i]).networks)
	}
	return all
}

func (r *Registry) networksFile(c *Compiled, spec *config.NetworksFile) *networksFile {
	f := c.networks[spec.Path]
	if f == nil {
		f = &networksFile{followed: r.follow(c, "networks", spec.Path), sum: spec.Sum}
		f.networks.Switch(listen.NewNetworks(spec.Prefixes))
		c.networks[spec.Path] = f
	}
	return f
}

// putNetworks ends the watch over the files of the configuration before, and begins that over those of c.
func (r *Registry) putNetworks(c *Compiled) {
	for _, f := range r.networksFiles {
		f.stop()
	}
	r.networksFiles = c.networks
	for _, f := range c.networks {
		f.start(r.log)
	}
}

func (f *networksFile) start(log *slog.Logger) {
	f.right() // as the configuration has read it
	f.begin(func(ctx context.Context) {
		each(ctx, watchNetworksEvery, func() { f.look(log) })
	})
}

// look reads the file if it is another than the one that was read, and puts it in force if it is right.
func (f *networksFile) look(log *slog.Logger) {
	at, err := f.watch.look(f.Path, false)
	if err == errUnchanged {
		return
	}
	if err != nil {
		f.wrong(log, err)
		return
	}
	read, err := config.ReadNetworksFile(f.Path)
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
	case read.Sum != f.sum:
		f.networks.Switch(listen.NewNetworks(read.Prefixes))
		f.sum = read.Sum
		log.Info("the file was read again", "kind", f.Kind, "file", f.Path, "networks", len(read.Prefixes))
	case again:
		log.Info("the file is right again", "kind", f.Kind, "file", f.Path)
	}
}
