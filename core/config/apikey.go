package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// APIKey is what is kept of an API key.
type APIKey struct {
	Sum [sha256.Size]byte // its SHA-256
	ID  string            // public: the key begins with it, one of keySeparators follows, and then what is secret; "": it has none
}

const (
	minKeyBytes = 16 // of what is secret
	maxKeyBytes = 1024
	maxKeyID    = 64
	// keySeparators are those of core.
	keySeparators = "_-."
	keyHint       = "printf %s \"$KEY\" | sluice hash key"
)

// IsKeyID says whether s may be the id of an API key: from 1 to 64 letters, digits, and inside of it '.', '_' and '-'.
func IsKeyID(s string) bool {
	return isName(s) && len(s) <= maxKeyID && strings.IndexByte(keySeparators, s[len(s)-1]) < 0
}

// apiKey reads the hash of a key, a reference to the key itself, or a map of one of both and its id.
func (d *decoder) apiKey(key string, n ast.Node, c *Consumer) {
	if n = d.resolve(n); n == nil {
		return
	}
	if !isMap(n) {
		d.keyText(key, n, "", c)
		return
	}
	var id string
	var text ast.Node
	before := d.errors
	d.mapping(key, n, "id key", func(key string, _, v ast.Node) bool {
		switch key {
		case "id":
			if d.text(key, v, &id) && !IsKeyID(id) {
				d.problem(v, "", "%s", wrongKeyID(id))
			}
		case "key":
			text = v
		default:
			return false
		}
		return true
	})
	switch {
	case d.errors > before:
	case text == nil:
		d.problem(n, "{ id: acme_1, key: \"sha256:...\" }", "%q has no %q", key, "key")
	default:
		d.keyText("key", text, id, c)
	}
}

// keyText reads the hash of a key, or a reference to the key itself, which begins with the id then.
func (d *decoder) keyText(key string, n ast.Node, id string, c *Consumer) {
	var s string
	if n = d.resolve(n); n == nil || !d.text(key, n, &s) {
		return
	}
	if isReference(s) {
		var secret Secret
		if !d.secret(key, n, maxKeyBytes, &secret) {
			return
		}
		whole := secret.Reveal()
		rest, ok := strings.CutPrefix(whole, id)
		if id != "" {
			if !ok || rest == "" || strings.IndexByte(keySeparators, rest[0]) < 0 {
				d.problem(n, "", "this API key does not begin with its id, %q, and one of %q", id, keySeparators)
				return
			}
			rest = rest[1:]
		}
		switch {
		case len(rest) >= minKeyBytes:
		case id != "":
			d.problem(n, "", "behind its id an API key has at least %d bytes", minKeyBytes)
			return
		default:
			d.problem(n, "", "an API key has from %d to %d bytes", minKeyBytes, maxKeyBytes)
			return
		}
		sum := sha256.Sum256([]byte(whole))
		s = keyText(sum)
	}
	if wrong := c.addKey(id, s); wrong != "" {
		d.conceal(s) // it may be the key itself
		d.problem(n, keyHint, "%s", wrong)
	}
}

// readKey reads a key of a file: its hash, or an object with its id.
func (c *Consumer) readKey(r objectReader) error {
	t, err := r.Token()
	if err != nil {
		return jsonError(err)
	}
	if s, ok := t.(string); ok {
		return asError(c.addKey("", s))
	}
	if t != json.Delim('{') {
		return errors.New("a string, or an object, was expected here")
	}
	var id, text string
	if err := r.members(func(key string) error {
		s, err := r.text()
		switch {
		case err != nil:
			return err
		case key == "id" && !IsKeyID(s):
			return errors.New(wrongKeyID(s))
		case key == "id":
			id = s
		case key == "key":
			text = s
		default:
			return fmt.Errorf("unknown key %q", clip(key))
		}
		return nil
	}); err != nil {
		return err
	}
	return asError(c.addKey(id, text))
}

func wrongKeyID(s string) string {
	return fmt.Sprintf("%q is no id of an API key: it has from 1 to %d letters, digits, and inside of it '.', '_' and '-'", clip(s), maxKeyID)
}

func (c *Consumer) addKey(id, s string) string {
	digits, hashed := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(digits)
	switch {
	case !hashed:
		return "an API key is written as its hash, or by reference: here it could be read by everybody" // and must not be repeated
	case err != nil || len(b) != sha256.Size:
		return `the hash of an API key is "sha256:" and 64 hexadecimal digits`
	case len(c.Keys) == maxCredentials:
		return fmt.Sprintf("a consumer has at most %d keys", maxCredentials)
	}
	c.Keys = append(c.Keys, APIKey{[sha256.Size]byte(b), id})
	return ""
}

// addKeys notes whose keys these are, and whose ids. Two keys with one id could not be told apart.
func (r *roll) addKeys(c *Consumer) (other, wrong string) {
	for i := range c.Keys {
		k := &c.Keys[i]
		if other = claim(r.keys, [][sha256.Size]byte{k.Sum}, c.Name); other != "" {
			return other, ""
		}
		if k.ID == "" {
			continue
		}
		if owner := claim(r.keyIDs, []string{k.ID}, c.Name); owner != "" {
			if owner == c.Name {
				return "", fmt.Sprintf("consumer %q has two keys with the id %q", c.Name, k.ID)
			}
			return "", fmt.Sprintf("consumers %q and %q have keys with the same id, %q", clip(owner), clip(c.Name), k.ID)
		}
	}
	return "", ""
}

func keyText(sum [sha256.Size]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

func (w *dumper) apiKeys(all []APIKey) {
	if len(all) == 0 {
		return
	}
	texts := make([]string, len(all))
	for i := range all {
		texts[i] = quote(keyText(all[i].Sum))
		if all[i].ID != "" {
			texts[i] = fmt.Sprintf("{ id: %s, key: %s }", quote(all[i].ID), texts[i])
		}
	}
	w.line("keys: [%s]", strings.Join(texts, ", "))
}
