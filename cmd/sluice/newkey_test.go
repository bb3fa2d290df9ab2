package main

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
)

// TestNewKey: what is printed can be pasted into a consumer, and stands for the key above it; no two are alike, and every digit is drawn.
func TestNewKey(t *testing.T) {
	seen, drawn := map[string]bool{}, ""
	for range 100 {
		code, out, errs := execute("hash", "new-key", "--prefix", "acme_live_")
		key, lines, _ := strings.Cut(out, "\n")
		cfg, problems := config.Parse("sluice.yaml", []byte("listeners: { a: { bind: \":1\" } }\nroutes: [{ match: /, respond: {} }]\nconsumers:\n  acme:\n    "+lines), config.Env{})
		if code != exitOK || errs != "" || cfg == nil || len(cfg.Consumers) != 1 || len(cfg.Consumers[0].Keys) != 1 {
			t.Fatalf("%d, %s%s\n%v", code, out, errs, problems)
		}
		k := cfg.Consumers[0].Keys[0]
		secret, begins := strings.CutPrefix(key, k.ID+"_")
		if !begins || len(secret) != keySecretDigits || !strings.HasPrefix(k.ID, "acme_live_") || k.Sum != sha256.Sum256([]byte(key)) {
			t.Fatalf("key %q has id %q and hash %x", key, k.ID, k.Sum)
		}
		if seen[k.ID] || seen[secret] {
			t.Fatalf("%q has been made before", key)
		}
		seen[k.ID], seen[secret] = true, true
		drawn += secret
	}
	for _, c := range keyDigits {
		if n := strings.Count(drawn, string(c)); n < 10 || n > 120 { // 52 are expected of each
			t.Errorf("%q is drawn %d times of %d", c, n, len(drawn))
		}
	}
	if rest := strings.Trim(drawn, keyDigits); rest != "" {
		t.Errorf("%q is drawn", rest)
	}
}
