package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
)

// Costs of argon2id as OWASP's second recommendation has them: 19 MiB, two rounds, one lane.
const (
	hashMemoryKiB = 19 << 10
	hashRounds    = 2
	hashLanes     = 1
	hashBytes     = 32
	saltBytes     = 16

	minKeyBytes    = 16
	maxSecretBytes = 1024
)

func runHash(c *invocation) int {
	if len(c.words) != 1 || c.words[0] != "key" && c.words[0] != "password" && c.words[0] != "new-key" {
		fmt.Fprint(c.stderr, c.command.usage())
		return exitUsage
	}
	switch {
	case c.words[0] == "new-key":
		return runNewKey(c)
	case len(c.values["prefix"]) > 0:
		return c.misused("--prefix is for new-key alone")
	}
	what, stdout := c.words[0], c.stdout
	secret, err := readSecret(c.stdin)
	if err == nil && what == "key" && len(secret) < minKeyBytes {
		err = fmt.Errorf("a key has at least %d bytes: it must not be guessed", minKeyBytes)
	}
	if err != nil {
		return c.refuse(fmt.Errorf("cannot hash the %s: %w", what, err))
	}
	if what == "key" {
		sum := sha256.Sum256(secret)
		fmt.Fprintln(stdout, "sha256:"+hex.EncodeToString(sum[:]))
		return exitOK
	}
	var salt [saltBytes]byte
	_, _ = rand.Read(salt[:]) // never fails
	sum := argon2.IDKey(secret, salt[:], hashRounds, hashMemoryKiB, hashLanes, hashBytes)
	e := base64.RawStdEncoding
	fmt.Fprintf(stdout, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s\n", argon2.Version, hashMemoryKiB, hashRounds, hashLanes,
		e.EncodeToString(salt[:]), e.EncodeToString(sum))
	return exitOK
}

// readSecret reads a line without its end.
func readSecret(in io.Reader) ([]byte, error) {
	s := bufio.NewScanner(io.LimitReader(in, maxSecretBytes+2))
	if !s.Scan() {
		if err := s.Err(); err != nil {
			return nil, err
		}
		return nil, errors.New("the standard input is empty")
	}
	switch n := len(s.Bytes()); {
	case n == 0:
		return nil, errors.New("the first line is empty")
	case n > maxSecretBytes:
		return nil, fmt.Errorf("it is longer than %d bytes", maxSecretBytes)
	}
	return s.Bytes(), nil
}
