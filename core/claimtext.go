package core

// ClaimTexts are those of a verified token that policies of the configuration ask for. Immutable; nil has none.
type ClaimTexts struct{ names, values []string }

// NewClaimTexts gives the values of names, in their order. It keeps both.
func NewClaimTexts(names, values []string) *ClaimTexts { return &ClaimTexts{names, values} }

// Value is what the token's issuer says; false: nothing, or what is no text. A list is its items with commas between. Claims that are asked
// for are few, so they are looked through.
func (c *ClaimTexts) Value(name string) (string, bool) {
	if c == nil {
		return "", false
	}
	for i, n := range c.names {
		if n == name {
			return c.values[i], true
		}
	}
	return "", false
}

// bytes is about what they take in memory.
func (c *ClaimTexts) bytes() (n int) {
	if c == nil {
		return 0
	}
	for _, v := range c.values {
		n += len(v) + 32
	}
	return n
}
