package config

import (
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Secrets say where secrets come from that are given by reference, besides the environment, files and the service manager's credentials.
type Secrets struct {
	Refresh time.Duration // between looks whether the vault has another secret, 1s..24h; files are looked at every 5s, or as often; 0: at a reload alone (off); 5m
	Vault   *Vault        // nil: there is none
}

// Vault is an OpenBao or HashiCorp Vault, of whose version 2 key-value engines vault:MOUNT/PATH#KEY is read.
type Vault struct {
	Pos       Pos
	Address   string // https://host:port; http on this host alone
	Namespace string
	CA        string        // file with the authorities that vouch for it; "": the system's
	Timeout   time.Duration // of each request; 5s, 10ms..30s
	Token     Secret        // by reference, as SecretID; either this or AppRole
	AppRole   *AppRole
}

// AppRole is who we are to a vault.
type AppRole struct {
	RoleID   string
	SecretID Secret
	Mount    string // approle
}

const (
	secretsKeys     = "refresh vault"
	vaultKeys       = "address namespace ca timeout token approle"
	maxVaultSecret  = 4096
	maxVaultPath    = 1024
	maxVaultTimeout = 30 * time.Second
	defaultRefresh  = 5 * time.Minute

	referenceHint = "write env:NAME, file:/path, cred:NAME or vault:MOUNT/PATH#KEY"
)

// isReference says whether a value is to be read from elsewhere.
func isReference(s string) bool {
	scheme, _, found := strings.Cut(s, ":")
	return found && (scheme == "env" || scheme == "file" || scheme == "cred" || scheme == "vault")
}

// follow reads what a reference stands for. One line end at the end of a file is not part of the value.
func (d *decoder) follow(n ast.Node, s string) (value string, ok bool) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch scheme {
	case "env":
		if value, ok = d.env.lookupEnv(rest); !ok {
			d.problem(n, "", "environment variable %q is not set", clip(rest))
		}
		return value, ok
	case "file":
		if !strings.HasPrefix(rest, "/") {
			d.problem(n, "write file:/path", "the path of a reference must be absolute, not %q", clip(rest))
			return "", false
		}
		return d.readSecret(n, rest)
	case "cred":
		folder, is := d.env.lookupEnv("CREDENTIALS_DIRECTORY")
		switch {
		case rest == "" || len(rest) > 255 || rest == "." || rest == ".." || strings.ContainsAny(rest, "/\x00"):
			d.problem(n, "cred:NAME, as in LoadCredential=NAME:...", "%q is no name of a credential", clip(rest))
			return "", false
		case !is || !strings.HasPrefix(folder, "/"):
			d.problem(n, "LoadCredential= or SetCredentialEncrypted= in the unit", "the service manager has passed no credentials")
			return "", false
		}
		return d.readSecret(n, strings.TrimSuffix(folder, "/")+"/"+rest)
	}
	return d.vaulted(n, rest)
}

func (d *decoder) readSecret(n ast.Node, path string) (string, bool) {
	text, err := d.env.readSecret(path)
	if err != nil {
		d.problem(n, "", "cannot read %q: %s", clip(path), cause(err))
		return "", false
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), true
}

// vaulted reads MOUNT/PATH#KEY.
func (d *decoder) vaulted(n ast.Node, s string) (string, bool) {
	at, key, ok := strings.Cut(s, "#")
	mount, path, also := strings.Cut(at, "/")
	if !ok || !also || key == "" || len(s) > maxVaultPath || hasControl(s) || !soundPath(mount) || !soundPath(path) {
		d.problem(n, "vault:MOUNT/PATH#KEY", "%q names no key of a secret", clip("vault:"+s))
		return "", false
	}
	v := d.cfg.Secrets.Vault
	if v == nil {
		d.problem(n, "secrets: { vault: { address: https://host:8200, token: file:/path } }, before what refers to it", "there is no vault above")
		return "", false
	}
	if d.env.ReadVault == nil {
		d.problem(n, "", "no vault can be asked here")
		return "", false
	}
	value, err := d.env.ReadVault(v, mount, path, key)
	if err != nil {
		d.problem(n, "", "cannot read %q: %s", clip("vault:"+s), cause(err))
		return "", false
	}
	return value, true
}

// soundPath says whether no part of a path is empty or leads upward.
func soundPath(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// secrets reads the key of that name.
func (d *decoder) secrets(key string, n ast.Node) {
	d.mapping(key, n, secretsKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "refresh":
			if s, word := d.resolve(v).(*ast.StringNode); word && s.Value == "off" {
				d.cfg.Secrets.Refresh = 0
				return true
			}
			d.optionalDuration(key, v, &d.cfg.Secrets.Refresh)
			if r := d.cfg.Secrets.Refresh; r > 0 && r < time.Second {
				d.problem(v, "", "%q must be at least 1s, or off", key)
			}
		case "vault":
			d.cfg.Secrets.Vault = d.vault(key, v)
		default:
			return false
		}
		return true
	})
}

// vault reads one. It is nil if it is wrong, which was reported.
func (d *decoder) vault(key string, n ast.Node) *Vault {
	v := &Vault{Pos: d.at(n), Timeout: 5 * time.Second}
	before := d.errors
	given := map[string]bool{}
	ok := d.mapping(key, n, vaultKeys, func(key string, _, at ast.Node) bool {
		given[key] = true
		switch key {
		case "address":
			d.vaultAddress(key, at, &v.Address)
		case "namespace":
			d.clientText(key, at, &v.Namespace)
		case "ca":
			if d.text(key, at, &v.CA) {
				v.CA = d.relative(v.CA)
			}
		case "timeout":
			d.durationUpTo(key, at, 10*time.Millisecond, maxVaultTimeout, &v.Timeout)
		case "token":
			if d.referred(key, at, 1, maxVaultSecret, &v.Token) && hasControl(v.Token.Reveal()) {
				d.problem(at, "", "%q holds control characters", key)
			}
		case "approle":
			v.AppRole = d.appRole(key, at)
		default:
			return false
		}
		return true
	})
	switch {
	case !ok || d.errors > before:
		return nil
	case !given["address"]:
		d.problem(n, "add address: https://host:8200", "%q has no %q", key, "address")
		return nil
	case given["token"] == given["approle"]:
		d.problem(n, "add token: file:/path, or approle: { role_id: ID, secret_id: file:/path }", "%q needs either %q or %q", key, "token", "approle")
		return nil
	}
	return v
}

// vaultAddress reads a URL. Secrets cross it, so it is https, but to this host.
func (d *decoder) vaultAddress(key string, n ast.Node, to *string) {
	d.url(key, n, "https http", to)
	u, err := url.Parse(*to)
	if *to == "" || err != nil {
		return
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !a.IsLoopback()) {
		d.problem(n, "write https://", "what %q sends must be encrypted, but to this host itself", "vault")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		d.problem(n, "write https://host:8200", "%q is the vault's own, without a path", key)
	}
}

func (d *decoder) appRole(key string, n ast.Node) *AppRole {
	a := &AppRole{Mount: "approle"}
	given := map[string]bool{}
	before := d.errors
	ok := d.mapping(key, n, "role_id secret_id mount", func(key string, _, v ast.Node) bool {
		given[key] = true
		switch key {
		case "role_id":
			d.clientText(key, v, &a.RoleID)
		case "secret_id":
			d.referred(key, v, 1, maxVaultSecret, &a.SecretID)
		case "mount":
			if d.text(key, v, &a.Mount) && (!soundPath(a.Mount) || hasControl(a.Mount) || len(a.Mount) > maxVaultPath) {
				d.problem(v, "", "%q is no mount", clip(a.Mount))
			}
		default:
			return false
		}
		return true
	})
	if ok && d.errors == before && (!given["role_id"] || !given["secret_id"]) {
		d.problem(n, "", "%q needs %q and %q", key, "role_id", "secret_id")
	}
	return a
}

// confidential marks a credential, and warns of one that stands in the file for everybody to read who can read it.
func (d *decoder) confidential(n ast.Node, key string, s *Secret) {
	if !s.IsReference() && s.Reveal() != "" {
		d.warnAt(d.at(n), referenceHint, "%q stands here in clear text", key)
		d.conceal(s.Reveal())
	}
	s.private = true
}

// credentialField says whether a header's value is one by which somebody proves who he is.
func credentialField(name string) bool {
	lower := strings.ToLower(name)
	switch lower {
	case "authorization", "proxy-authorization", "cookie":
		return true
	}
	for _, part := range []string{"secret", "password", "token", "api-key", "api_key", "apikey"} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return false
}

// credentialText says whether the first bytes of a connection look like a login.
func credentialText(s string) bool {
	lower := strings.ToLower(s)
	for _, part := range []string{"auth", "hello", "login", "pass", "secret", "token"} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return false
}

// secret writes a value that may be one. In clear, one that stands in the file is shown.
func (w *dumper) secret(s Secret) string {
	if w.clear && !s.reference {
		return quote(s.value)
	}
	return quote(s.String())
}

// under writes a value that stands under a name: not that of a credential.
func (w *dumper) under(name, value string) string {
	if !w.clear && credentialField(name) {
		return quote(redacted)
	}
	return quote(value)
}

// url writes a URL, or a path, without the credentials in its query.
func (w *dumper) url(s string) string {
	at, query, found := strings.Cut(s, "?")
	if !found || w.clear {
		return quote(s)
	}
	arguments := strings.Split(query, "&")
	for i, a := range arguments {
		if name, _, valued := strings.Cut(a, "="); valued && credentialField(name) {
			arguments[i] = name + "=" + redacted
		}
	}
	return quote(at + "?" + strings.Join(arguments, "&"))
}

func (w *dumper) secrets(s *Secrets) {
	w.block("secrets:", func() {
		w.line("refresh: %s", formatDuration(s.Refresh))
		v := s.Vault
		if v == nil {
			return
		}
		w.block("vault:", func() {
			w.line("address: %s", quote(v.Address))
			if v.Namespace != "" {
				w.line("namespace: %s", quote(v.Namespace))
			}
			if v.CA != "" {
				w.line("ca: %s", quote(v.CA))
			}
			w.line("timeout: %s", formatDuration(v.Timeout))
			if a := v.AppRole; a != nil {
				w.line("approle: { role_id: %s, secret_id: %s, mount: %s }", quote(a.RoleID), quote(a.SecretID.String()), quote(a.Mount))
			} else {
				w.line("token: %s", quote(v.Token.String()))
			}
		})
	})
}
