package config

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Password is the hash of a password: a bcrypt hash as it is written, or the parts of an argon2id hash (RFC 9106).
type Password struct {
	Bcrypt string // "": argon2id

	MemoryKiB, Rounds uint32
	Lanes             uint8
	Salt, Sum         []byte
}

// What one verification may cost: a hash that asks for more could stop the gateway.
const (
	minMemoryKiB  = 7 << 10
	maxMemoryKiB  = 256 << 10
	maxRounds     = 16
	maxLanes      = 16
	minBcryptCost = 10
	maxBcryptCost = 14
	bcryptBytes   = 60
)

// parsePassword reads $argon2id$v=19$m=65536,t=3,p=4$SALT$SUM or $2b$12$..., and says what is wrong with anything else. It
// never repeats the text, which may be a password.
func parsePassword(s string) (p Password, wrong string) {
	parts := strings.Split(s, "$")
	switch {
	case len(parts) == 4 && len(parts[1]) == 2 && parts[1][0] == '2' && strings.IndexByte("aby", parts[1][1]) >= 0:
		cost, err := strconv.Atoi(parts[2])
		if err != nil || len(parts[2]) != 2 || len(s) != bcryptBytes || strings.Trim(parts[3], bcryptAlphabet) != "" {
			return p, "this is no whole bcrypt hash"
		}
		if cost < minBcryptCost || cost > maxBcryptCost {
			return p, fmt.Sprintf("the cost of a bcrypt hash is from %d to %d", minBcryptCost, maxBcryptCost)
		}
		return Password{Bcrypt: s}, ""
	case len(parts) == 6 && parts[0] == "" && parts[1] == "argon2id":
		return parseArgon2(parts[2:])
	}
	return p, "a password is written as its hash by argon2id or bcrypt: sluice hash password"
}

const bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func parseArgon2(parts []string) (p Password, wrong string) {
	if parts[0] != "v=19" {
		return p, "an argon2id hash has version 19"
	}
	costs := strings.Split(parts[1], ",")
	if len(costs) != 3 {
		return p, "the costs of an argon2id hash are written as m=65536,t=3,p=4"
	}
	var values [3]uint32
	for i, bound := range []struct {
		prefix    string
		low, high uint64
	}{{"m=", minMemoryKiB, maxMemoryKiB}, {"t=", 1, maxRounds}, {"p=", 1, maxLanes}} {
		digits, ok := strings.CutPrefix(costs[i], bound.prefix)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || v < bound.low || v > bound.high {
			return p, fmt.Sprintf("an argon2id hash has %s from %d to %d", bound.prefix, bound.low, bound.high)
		}
		values[i] = uint32(v)
	}
	p = Password{MemoryKiB: values[0], Rounds: values[1], Lanes: uint8(values[2])}
	var err1, err2 error
	p.Salt, err1 = base64.RawStdEncoding.Strict().DecodeString(parts[2])
	p.Sum, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[3])
	if err1 != nil || err2 != nil || len(p.Salt) < 8 || len(p.Salt) > 64 || len(p.Sum) < 16 || len(p.Sum) > 64 {
		return Password{}, "an argon2id hash has a salt of 8 to 64 bytes and a sum of 16 to 64, in base64 without padding"
	}
	return p, ""
}

// text is what parsePassword reads.
func (p *Password) text() string {
	if p.Bcrypt != "" {
		return p.Bcrypt
	}
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", p.MemoryKiB, p.Rounds, p.Lanes, e.EncodeToString(p.Salt), e.EncodeToString(p.Sum))
}
