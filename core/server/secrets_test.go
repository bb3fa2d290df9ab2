package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSecretsChange: a secret that changes in a vault, a file or among the credentials is taken over by itself; what else has changed on
// disk is not. While the vault is away, sealed or empty, what is known stays in force.
func TestSecretsChange(t *testing.T) {
	v := newFakeVault(t)
	v.set("shop/keys", "greeting", "hello")
	creds := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", creds)
	t.Setenv("SLUICE_TEST_SECRET", "s3cret-id")
	file, cred := filepath.Join(creds, "file"), filepath.Join(creds, "cred")
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".next", []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".next", path); err != nil {
			t.Fatal(err)
		}
	}
	put(file, "f1")
	put(cred, "c1")
	config := func(status, reference string) string {
		return strings.NewReplacer("VAULT", v.url, "FILE", file, "STATUS", status, "REFERENCE", reference).Replace(`
loops: 1
secrets: { refresh: 1s, vault: { address: "VAULT", namespace: shop, timeout: 200ms, approle: { role_id: gateway, secret_id: env:SLUICE_TEST_SECRET } } }
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", respond: { status: STATUS, headers: { X-Vault: "REFERENCE", X-File: "file:FILE", X-Cred: cred:cred } } }]
`)
	}
	const reference = "vault:secret/shop/keys#greeting"
	g := run(t, config("200", reference))
	says := func(vaulted, file, cred string) bool {
		res, _ := forwardGet(t, g.addr, "/", nil)
		return res.StatusCode == 200 && res.Header.Get("X-Vault") == vaulted && res.Header.Get("X-File") == file && res.Header.Get("X-Cred") == cred
	}
	if !says("hello", "f1", "c1") {
		t.Error("secrets are not what they are at the start")
	}
	generation := g.status().Generation
	v.set("shop/keys", "greeting", "hallo")
	eventually(t, "the vault's secret is taken over", func() bool { return says("hallo", "f1", "c1") })
	put(file, "f2")
	put(cred, "c2")
	eventually(t, "the files' secrets are taken over", func() bool { return says("hallo", "f2", "c2") })
	v.do(func() { v.sealed = true })
	eventually(t, "the failure is told", func() bool { return strings.Contains(g.log.String(), "secrets cannot be read") })
	g.write(config("200", reference))
	if err := g.admin.Reload(true); err == nil || !strings.Contains(err.Error(), "sealed") || !strings.Contains(err.Error(), "sluice.yaml:5:") {
		t.Errorf("a reload without the vault: %v", err)
	}
	if !says("hallo", "f2", "c2") {
		t.Error("what was known is not in force any more")
	}
	v.do(func() { v.sealed = false })
	eventually(t, "the vault is back", func() bool { return strings.Contains(g.log.String(), "secrets can be read again") })
	before := g.status().Generation
	if before < generation+2 || before > generation+3 {
		t.Errorf("generation %d, and %d at the start: something was put in force although nothing has changed", before, generation)
	}
	g.write(config("204", reference))
	v.set("shop/keys", "greeting", "later")
	eventually(t, "it is said that the file has changed", func() bool { return strings.Contains(g.log.String(), "changed on disk") })
	if !says("hallo", "f2", "c2") {
		t.Error("what has changed on disk was taken over without a reload")
	}
	text, err := g.admin.Config()
	if shown := string(text) + g.log.String(); err != nil || strings.Contains(shown, "hallo") || strings.Contains(shown, "s3cret-id") || strings.Contains(shown, "hvs.") {
		t.Errorf("secrets are shown: %v\n%s", err, shown)
	}
	if err := g.admin.Reload(true); err != nil {
		t.Error(err)
	}
	res, _ := forwardGet(t, g.addr, "/", nil)
	if res.StatusCode != 204 || res.Header.Get("X-Vault") != "later" {
		t.Errorf("after the reload: %v", res)
	}
}

// TestSecretsAway: a gateway does not start without a secret that it needs, and says where it stands.
func TestSecretsAway(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "root-token")
	v := newFakeVault(t)
	v.do(func() { v.sealed = true })
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := `
secrets: { vault: { address: "` + v.url + `", namespace: shop, token: env:SLUICE_TEST_SECRET } }
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", respond: { headers: { X-A: "vault:secret/a#k", X-B: "vault:secret/b#k" } } }]
admin: off
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &journal{}
	began := time.Now()
	if err := Run(Options{ConfigFile: file, Version: "test", Stderr: log}); err != ErrRefused || !strings.Contains(log.String(), "sluice.yaml:4:52: ") || !strings.Contains(log.String(), "sealed") {
		t.Errorf("%v after %s\n%s", err, time.Since(began), log)
	}
	v.do(func() { v.sealed = false })
	v.set("a", "k", "1")
	if cfg, problems := Load(file); cfg != nil || !strings.Contains(problems.String(), "no such secret") || strings.Contains(problems.String(), "root-token") {
		t.Errorf("%s", problems)
	}
	v.set("b", "k", "2")
	if cfg, problems := Load(file); cfg == nil || cfg.Routes[0].Respond.Headers[1].Value.Reveal() != "2" {
		t.Errorf("%s", problems)
	}
}
