package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	tokenCount    = 1000
	tokenKeyBits  = 2048
	tokenAudience = "bench"
	tokenLife     = 24 * time.Hour
)

// tokens are what clients prove themselves with. It is never changed.
type tokens struct {
	keys string // JWKS file that verifies them
	all  string // file of tokens, one a line, each of another subject
	one  string // of them
}

// makeTokens writes tokens signed by RS256 to dir. Their key is worth nothing: it is kept nowhere.
func makeTokens(dir string) (tokens, error) {
	key, err := rsa.GenerateKey(rand.Reader, tokenKeyBits)
	if err != nil {
		return tokens{}, fmt.Errorf("cannot make a key for tokens: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	public := map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())}
	sum := sha256.Sum256(key.N.Bytes())
	public["kid"] = encode(sum[:8])
	set, err := json.Marshal(map[string]any{"keys": []any{public}})
	if err != nil {
		return tokens{}, fmt.Errorf("cannot encode the keys of tokens: %w", err)
	}
	made := tokens{keys: filepath.Join(dir, "jwks.json"), all: filepath.Join(dir, "tokens.txt")}
	until := time.Now().Add(tokenLife).Unix()
	var lines strings.Builder
	for i := range tokenCount {
		t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"sub": fmt.Sprintf("user-%04d", i), "aud": tokenAudience, "exp": until})
		t.Header["kid"] = public["kid"]
		if made.one, err = t.SignedString(key); err != nil {
			return tokens{}, fmt.Errorf("cannot sign a token: %w", err)
		}
		lines.WriteString(made.one + "\n")
	}
	for path, text := range map[string]string{made.keys: string(set), made.all: lines.String()} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return tokens{}, fmt.Errorf("cannot write what tokens are verified with: %w", err)
		}
	}
	return made, nil
}
