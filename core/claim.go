package core

// Claims are those of a verified token that policies of the configuration ask for. Immutable; nil has none.
type Claims struct{ names, values []string }

// NewClaims gives the values of names, in their order. It keeps both.
func NewClaims(names, values []string) *Claims { return &Claims{names, values} }

// Value is what the token's issuer says; false: nothing, or what is no text. A list is its items with commas between. Claims that are asked
// for are few, so they are looked through.
func (c *Claims) Value(name string) (string, bool) {
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
