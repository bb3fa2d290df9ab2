package compile

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
)

// consumers are those of a configuration.
type consumers struct {
	directory *core.Consumers
	config    *config.Config
	file      *followedText // nil: there is none
}

func (r *Registry) consumersOf(c *Compiled) error {
	file := &c.Config.ConsumersFile
	d, err := directory(c.Config, file)
	if err != nil {
		return err
	}
	c.consumers = &consumers{directory: core.NewConsumers(d), config: c.Config}
	if file.Path != "" {
		c.consumers.file = &followedText{followed: r.follow(c, "consumers", file.Path), read: c.consumers.read, sum: file.Sum}
	}
	return nil
}

// read reads the file as it is now.
func (c *consumers) read() (sum [sha256.Size]byte, put func() int, err error) {
	text, err := config.ReadConsumersFile(c.file.Path)
	if err != nil {
		return sum, nil, err
	}
	if sum = sha256.Sum256(text); sum == c.file.sum {
		return sum, nil, nil
	}
	f, problems := c.config.ReadConsumers(text)
	if f == nil {
		return sum, nil, fmt.Errorf("%s: %s (%d problems)", problems[0].Pos, problems[0].Message, len(problems))
	}
	d, err := directory(c.config, f)
	if err != nil {
		return sum, nil, err
	}
	return sum, func() int {
		c.directory.Switch(d)
		return d.Len()
	}, nil
}

// putConsumers ends the watch over the file of the configuration before, and begins that over the one of c.
func (r *Registry) putConsumers(c *Compiled) {
	r.consumers.stop()
	r.consumers = c.consumers
	if f := r.consumers.file; f != nil {
		f.start(r.log)
	}
}

func (c *consumers) stop() {
	if c != nil && c.file != nil {
		c.file.stop()
	}
}

// directory is that of cfg with f in the place of its file.
func directory(cfg *config.Config, f *config.ConsumersFile) (*core.Directory, error) {
	all := make([]core.ConsumerSpec, 0, len(cfg.Consumers)+len(f.Consumers))
	for _, list := range [][]config.Consumer{cfg.Consumers, f.Consumers} {
		for i := range list {
			c := &list[i]
			s := core.ConsumerSpec{Consumer: core.Consumer{Name: c.Name, Groups: c.Groups, Roles: c.Roles, Tier: c.Tier, Tags: c.Tags, Tenant: c.Tenant}}
			if len(c.Keys) > 0 {
				s.Keys = make([]core.APIKey, len(c.Keys))
				for i := range c.Keys {
					s.Keys[i] = core.APIKey(c.Keys[i])
				}
			}
			if len(c.Basic) > 0 {
				s.Passwords = make(map[string]core.Password, len(c.Basic))
				for user, p := range c.Basic {
					s.Passwords[user] = core.Password(p)
				}
			}
			for _, text := range c.Certificates {
				if name, ok := strings.CutPrefix(text, "san:"); ok {
					s.CertNames = append(s.CertNames, name)
				} else if name, ok := strings.CutPrefix(text, "cn:"); ok {
					s.CommonNames = append(s.CommonNames, name)
				} else {
					s.Fingerprints = append(s.Fingerprints, text)
				}
			}
			for _, t := range c.JWT {
				s.Subjects = append(s.Subjects, core.TokenSubject(t))
			}
			for i := range c.Signatures {
				k, err := c.Signatures[i].Value()
				if err != nil {
					return nil, fmt.Errorf("%s: consumer %q: %w", c.Pos, c.Name, err)
				}
				if s.SigningKeys == nil {
					s.SigningKeys = map[string]any{}
				}
				s.SigningKeys[c.Signatures[i].ID] = k
			}
			all = append(all, s)
		}
	}
	return core.NewDirectory(all)
}
