package compile

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
)

// consumers are those of a configuration. Their file is watched from Apply on, until another configuration is applied.
type consumers struct {
	background
	directory *core.Consumers
	config    *config.Config
}

// watchConsumersEvery is how often the file of consumers is looked at.
const watchConsumersEvery = time.Second

func newConsumers(cfg *config.Config) (*consumers, error) {
	d, err := directory(cfg, &cfg.ConsumersFile)
	if err != nil {
		return nil, err
	}
	return &consumers{directory: core.NewConsumers(d), config: cfg}, nil
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

func (c *consumers) start(log *slog.Logger) {
	path := c.config.ConsumersFile.Path
	if path == "" {
		return
	}
	c.begin(func(ctx context.Context) {
		w := consumerWatch{consumers: c, sum: c.config.ConsumersFile.Sum, log: log.With("file", path)}
		each(ctx, watchConsumersEvery, func() { w.look(path) })
	})
}

func (c *consumers) stop() {
	if c != nil {
		c.background.stop()
	}
}

// consumerWatch is what is known of the file. It belongs to the goroutine that watches.
type consumerWatch struct {
	consumers *consumers
	seen      os.FileInfo
	sum       [sha256.Size]byte
	failing   bool
	log       *slog.Logger
}

// look reads the file if it is another, or has another time or size. One that is wrong leaves in force what is.
func (w *consumerWatch) look(path string) {
	at, err := os.Stat(path)
	if err != nil {
		if !w.failing {
			w.log.Error("the file of consumers cannot be read: those known stay in force", "error", err)
		}
		w.failing = true
		return
	}
	if sameFile(at, w.seen) {
		return
	}
	w.seen, w.failing = at, false
	text, err := config.ReadConsumersFile(path)
	if err != nil {
		w.log.Error("the file of consumers cannot be read: those known stay in force", "error", err)
		return
	}
	if sha256.Sum256(text) == w.sum {
		return
	}
	cfg := w.consumers.config
	f, problems := cfg.ReadConsumers(text)
	if f == nil {
		w.log.Error("the file of consumers is refused: those known stay in force", "problems", len(problems), "first", problems[0].String())
		return
	}
	d, err := directory(cfg, f)
	if err != nil {
		w.log.Error("the file of consumers is refused: those known stay in force", "error", err)
		return
	}
	w.sum = f.Sum
	w.consumers.directory.Switch(d)
	w.log.Info("the file of consumers was read again", "consumers", d.Len())
}
