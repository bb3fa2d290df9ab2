package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/core/config"
)

// A new key is its prefix, digits that tell it from others of that prefix, and a secret of some 190 bits, with separators between. All but the
// secret is its id.
const (
	keyDigits       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	keyIDDigits     = 8
	keySecretDigits = 32
)

// runNewKey prints a new key, of which nothing is kept, and what stands for it in the configuration.
func runNewKey(c *invocation) int {
	prefix := c.text("prefix")
	separator := "_"
	if n := len(prefix) - 1; n >= 0 && strings.IndexByte("_-.", prefix[n]) >= 0 { // written as the policy has it
		prefix, separator = prefix[:n], prefix[n:]
	}
	id := randomDigits(keyIDDigits)
	if c.text("prefix") != "" {
		id = prefix + separator + id
		if !config.IsKeyID(prefix) || !config.IsKeyID(id) {
			return c.misused("%q cannot begin a key: letters, digits, and inside of them '.', '_' and '-'; with the %d digits that follow at most 64",
				c.text("prefix"), keyIDDigits)
		}
	}
	key := id + separator + randomDigits(keySecretDigits)
	sum := sha256.Sum256([]byte(key))
	fmt.Fprintf(c.stdout, "%s\nkeys: [{ id: %q, key: \"sha256:%s\" }]\n", key, id, hex.EncodeToString(sum[:]))
	return exitOK
}

// randomDigits draws n of keyDigits, each with the same chance.
func randomDigits(n int) string {
	const fair = 256 / len(keyDigits) * len(keyDigits)
	digits := make([]byte, 0, n)
	for b := [1]byte{}; len(digits) < n; {
		_, _ = rand.Read(b[:]) // never fails
		if int(b[0]) < fair {
			digits = append(digits, keyDigits[int(b[0])%len(keyDigits)])
		}
	}
	return string(digits)
}
