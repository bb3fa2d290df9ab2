package jwt

import "github.com/sluice-gateway/sluice/core"

// grant is what a verified token is good for.
type grant struct {
	*core.Grant
	token string
	until int64 // on the wall clock: not used later
}

// cache holds the tokens that one loop has seen verified, of one policy. Tokens are compared whole.
type cache struct {
	keys      *KeySet
	directory *core.Directory
	grants    core.Recent[*grant]
	verifying int // tokens whose verification is under way
}

// find gives the grant of a token that was verified with these keys, for a consumer of this directory. When either is another, the cache
// is empty.
func (c *cache) find(token []byte, keys *KeySet, d *core.Directory, now int64) *grant {
	if c.keys != keys || c.directory != d {
		c.keys, c.directory = keys, d
		c.grants.Clear()
		return nil
	}
	if g, ok := c.grants.Find(token); ok && now < g.until {
		return g
	}
	return nil
}

// put keeps a grant that was made with the keys and directory that find was asked about last.
func (c *cache) put(g *grant) {
	c.grants.Put(g.token, g, g.Bytes())
}
