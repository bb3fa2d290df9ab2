package compile

import (
	"crypto/sha256"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/policy/ip"
)

// networksFile is a file of networks, which all policies of a configuration share that name it.
type networksFile struct {
	followedText
	networks listen.FollowedNetworks
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
		f = newNetworksFile(r.follow(c, "networks", spec.Path))
		f.networks.Switch(listen.NewNetworks(spec.Prefixes))
		f.sum = spec.Sum
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

func newNetworksFile(as *followed) *networksFile {
	f := &networksFile{followedText: followedText{followed: as}}
	f.read = func() (sum [sha256.Size]byte, put func() int, err error) {
		read, err := config.ReadNetworksFile(f.Path)
		if err != nil {
			return sum, nil, err
		}
		return read.Sum, func() int {
			f.networks.Switch(listen.NewNetworks(read.Prefixes))
			return len(read.Prefixes)
		}, nil
	}
	return f
}
