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

const hashUsage = `usage: sluice hash key       hash an API key for "keys" of a consumer
       sluice hash password  hash a password for "basic" of a consumer, by argon2id
The secret is the first line of the standard input.
`

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

func runHash(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) != 1 || args[0] != "key" && args[0] != "password" {
		fmt.Fprint(stderr, hashUsage)
		return exitUsage
	}
	secret, err := readSecret(stdin)
	if err == nil && args[0] == "key" && len(secret) < minKeyBytes {
		err = fmt.Errorf("a key has at least %d bytes: it must not be guessed", minKeyBytes)
	}
	if err != nil {
		fmt.Fprintf(stderr, "sluice hash: cannot hash the %s: %v\n", args[0], err)
		return exitRefused
	}
	if args[0] == "key" {
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
