package basic

import (
	"crypto/sha256"

	"github.com/sluice-gateway/sluice/core"
)

// entry is whose credentials were right.
type entry struct {
	consumer *core.Consumer
	until    int64 // on the wall clock: not used later
}

// cache holds the credentials that one loop has seen verified. It has two generations: what is used stays, what is not goes when
// the young are full.
type cache struct {
	directory *core.Directory
	young     map[[sha256.Size]byte]entry
	old       map[[sha256.Size]byte]entry
}

// maxYoung bounds a generation.
const maxYoung = 10_000

// find gives the consumer of credentials that were verified with this directory. When it is another, the cache is empty.
func (c *cache) find(key [sha256.Size]byte, d *core.Directory, now int64) *core.Consumer {
	if c.directory != d {
		c.directory, c.young, c.old = d, nil, nil
		return nil
	}
	e, ok := c.young[key]
	if !ok {
		if e, ok = c.old[key]; !ok {
			return nil
		}
		delete(c.old, key)
		c.put(key, e)
	}
	if now >= e.until {
		return nil
	}
	return e.consumer
}

// put keeps what was verified with the directory that find was asked about last.
func (c *cache) put(key [sha256.Size]byte, e entry) {
	if len(c.young) >= maxYoung {
		c.old, c.young = c.young, nil
	}
	if c.young == nil {
		c.young = map[[sha256.Size]byte]entry{}
	}
	c.young[key] = e
}
