package core

import (
	"slices"
	"strings"
)

// ClaimTexts are those of a verified token that policies of the configuration ask for. Immutable; nil has none.
type ClaimTexts struct {
	names, values []string
	lists         [][]string // of claims that are lists; nil: there is none
	unfit         []string   // names of claims that are there, but cannot be compared with a text
}

// NewClaimTexts gives the values of names, in their order. It keeps both.
func NewClaimTexts(names, values []string) *ClaimTexts {
	return &ClaimTexts{names: names, values: values}
}

// Value is what the token's issuer says; false: nothing, or what is no text. A list is its items with commas between. Claims that are asked
// for are few, so they are looked through.
func (c *ClaimTexts) Value(name string) (string, bool) {
	if i := c.index(name); i >= 0 {
		return c.values[i], true
	}
	return "", false
}

// Items are those of a claim that is a list; nil: it is none, or not there. They are not the caller's to change.
func (c *ClaimTexts) Items(name string) []string {
	if i := c.index(name); i >= 0 {
		return c.list(i)
	}
	return nil
}

// Unfit says whether a claim is there but was not kept, because it is an object, is longer than 1024 bytes, or could be read in two ways. Who
// denies by claims denies it.
func (c *ClaimTexts) Unfit(name string) bool { return c != nil && slices.Contains(c.unfit, name) }

// Holds says whether a claim has one of the values, or if it is a list, whether any of its items has. A text with commas is no list.
func (c *ClaimTexts) Holds(name string, values ...string) bool {
	i := c.index(name)
	if i < 0 {
		return false
	}
	list := c.list(i)
	for _, v := range values {
		if list == nil && c.values[i] == v {
			return true
		}
		for _, item := range list {
			if item == v {
				return true
			}
		}
	}
	return false
}

// HoldsWord says whether a claim is words with spaces between, or a list, of which one is this.
func (c *ClaimTexts) HoldsWord(name, word string) bool {
	i := c.index(name)
	if i < 0 {
		return false
	}
	if list := c.list(i); list != nil {
		return c.Holds(name, word)
	}
	for one := range strings.FieldsSeq(c.values[i]) {
		if one == word {
			return true
		}
	}
	return false
}

func (c *ClaimTexts) index(name string) int {
	if c != nil {
		for i, n := range c.names {
			if n == name {
				return i
			}
		}
	}
	return -1
}

func (c *ClaimTexts) list(i int) []string {
	if c.lists == nil {
		return nil
	}
	return c.lists[i]
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
