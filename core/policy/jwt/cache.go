package jwt

import "github.com/sluice-gateway/sluice/core"

// grant is what a verified token is good for.
type grant struct {
	token    string
	until    int64 // on the wall clock: not used later
	consumer *core.Consumer
	kept     int          // bytes of claims
	claims   *core.Claims // that are kept; nil: none are asked for
	values   []string     // of the fields that the upstream gets, in the policy's order; "": none
}

// cache holds the tokens that one loop has seen verified, of one policy. Tokens are compared whole. It has two generations, so that
// what is used stays and what is not goes, without a list: when the young are full they become the old ones, and those go.
type cache struct {
	keys      *KeySet
	directory *core.Directory
	young     map[string]*grant
	old       map[string]*grant
	bytes     int // of the young
	verifying int // tokens whose verification is under way
}

// maxYoungBytes bounds a generation.
const maxYoungBytes = 4 << 20

// grantBytes is about what an entry takes besides its token.
const grantBytes = 256

// find gives the grant of a token that was verified with these keys, for a consumer of this directory. When either is another, the cache
// is empty.
func (c *cache) find(token []byte, keys *KeySet, d *core.Directory, now int64) *grant {
	if c.keys != keys || c.directory != d {
		c.keys, c.directory, c.bytes = keys, d, 0
		c.young, c.old = nil, nil
		return nil
	}
	g := c.young[string(token)]
	if g == nil {
		if g = c.old[string(token)]; g == nil {
			return nil
		}
		delete(c.old, g.token)
		c.put(g)
	}
	if now >= g.until {
		return nil
	}
	return g
}

// put keeps a grant that was made with the keys and directory that find was asked about last.
func (c *cache) put(g *grant) {
	size := len(g.token) + grantBytes
	for _, v := range g.values {
		size += len(v)
	}
	size += g.kept
	if c.bytes+size > maxYoungBytes {
		c.old, c.young, c.bytes = c.young, nil, 0
	}
	if c.young == nil {
		c.young = map[string]*grant{}
	}
	if c.young[g.token] == nil {
		c.bytes += size
	}
	c.young[g.token] = g
}
