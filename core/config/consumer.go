package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Consumer is somebody whom requests may come from, and by what he proves it. Of credentials only hashes are kept.
type Consumer struct {
	Name         string
	Pos          Pos
	Groups       []string
	Roles        []string
	Tier         string // "": none
	Tags         []string
	Tenant       string // to whom he belongs, with others; "": to nobody
	Keys         []APIKey
	Basic        map[string]Password // by user name
	JWT          []TokenSubject
	Certificates []string // SHA-256 of certificates, in lower-case hexadecimal; "san:" and an alternative name, or "cn:" and a common name
	Signatures   []SigningKey
}

// TokenSubject is whom a token is about.
type TokenSubject struct {
	Issuer  string // "": any that a policy accepts
	Subject string // value of sub, or of the claim that the policy names
}

const (
	consumerKeys   = "groups roles tier tags tenant keys basic jwt certificates signatures"
	maxConsumers   = 1_000_000
	maxMemberships = 100 // groups of a consumer, roles, and tags
	maxCredentials = 100 // of each kind, of one consumer
	maxUserBytes   = 256
	maxClaimBytes  = 256
)

// consumer reads one entry of `consumers`.
func (d *decoder) consumer(name string, k, v ast.Node) {
	d.name("a consumer", name, k)
	c := Consumer{Name: name, Pos: d.at(k)}
	refuse := func(v ast.Node, wrong string) {
		if wrong != "" {
			d.problem(v, "", "%s", wrong)
		}
	}
	each := func(key string, n ast.Node, add func(s string) string) {
		d.list(key, n, func(v ast.Node) {
			var s string
			if d.text(key, v, &s) {
				refuse(v, add(s))
			}
		})
	}
	d.mapping(fmt.Sprintf("consumer %q", name), v, consumerKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "groups":
			each(key, v, func(s string) string { return addMembership("group", s, &c.Groups) })
		case "roles":
			each(key, v, func(s string) string { return addMembership("role", s, &c.Roles) })
		case "tags":
			each(key, v, func(s string) string { return addMembership("tag", s, &c.Tags) })
		case "tier":
			var s string
			if d.text(key, v, &s) {
				refuse(v, c.setTier(s))
			}
		case "tenant":
			var s string
			if d.text(key, v, &s) {
				refuse(v, c.setTenant(s))
			}
		case "keys":
			d.list(key, v, func(v ast.Node) { d.apiKey(key, v, &c) })
		case "basic":
			d.mapping(key, v, "", func(user string, k, v ast.Node) bool {
				var s string
				if d.text(user, v, &s) {
					wrong := c.addLogin(user, s)
					if wrong != "" {
						d.conceal(s) // it may be the password itself
					}
					refuse(k, wrong)
				}
				return true
			})
		case "jwt":
			d.list(key, v, func(v ast.Node) { d.tokenSubject(key, v, &c) })
		case "certificates":
			each(key, v, c.addCertificate)
		case "signatures":
			d.list(key, v, func(v ast.Node) { d.signingKey(key, v, &c) })
		default:
			return false
		}
		return true
	})
	if wrong := d.roll.add(&c); wrong != "" {
		d.problemAt(c.Pos, "", "%s", wrong)
	} else {
		d.cfg.Consumers = append(d.cfg.Consumers, c)
	}
}

// tokenSubject reads a subject, or a map with its issuer.
func (d *decoder) tokenSubject(key string, n ast.Node, c *Consumer) {
	var t TokenSubject
	n = d.resolve(n)
	switch n.(type) {
	case nil:
		return
	case *ast.MappingNode, *ast.MappingValueNode:
		if !d.mapping(key, n, "issuer subject", func(key string, _, v ast.Node) bool {
			switch key {
			case "issuer":
				d.text(key, v, &t.Issuer)
			case "subject":
				d.text(key, v, &t.Subject)
			default:
				return false
			}
			return true
		}) {
			return
		}
	default:
		if !d.text(key, n, &t.Subject) {
			return
		}
	}
	if wrong := c.addSubject(t); wrong != "" {
		d.problem(n, "", "%s", wrong)
	}
}

// What follows fills a consumer, whatever the form in which he is written, and says what is wrong with a value.

func (c *Consumer) setTier(s string) string {
	if !isName(s) {
		return fmt.Sprintf("%q cannot name a tier", clip(s))
	}
	c.Tier = s
	return ""
}

func (c *Consumer) setTenant(s string) string {
	if !isName(s) {
		return fmt.Sprintf("%q cannot name a tenant", clip(s))
	}
	c.Tenant = s
	return ""
}

func addMembership(what, s string, to *[]string) string {
	switch {
	case !isName(s):
		return fmt.Sprintf("%q cannot name a %s", clip(s), what)
	case slices.Contains(*to, s):
		return fmt.Sprintf("%s %q is given twice", what, s)
	case len(*to) == maxMemberships:
		return fmt.Sprintf("a consumer has at most %d %ss", maxMemberships, what)
	}
	*to = append(*to, s)
	return ""
}

func (c *Consumer) addLogin(user, hash string) string {
	switch p, wrong := parsePassword(hash); {
	case user == "" || len(user) > maxUserBytes || hasControl(user) || strings.Contains(user, ":"):
		return fmt.Sprintf("%q is no user name: it has from 1 to %d bytes, no colon and no control characters", clip(user), maxUserBytes)
	case wrong != "":
		return wrong
	case len(c.Basic) == maxCredentials:
		return fmt.Sprintf("a consumer has at most %d user names", maxCredentials)
	default:
		if c.Basic == nil {
			c.Basic = map[string]Password{}
		}
		c.Basic[user] = p
	}
	return ""
}

func (c *Consumer) addSubject(t TokenSubject) string {
	switch {
	case t.Subject == "" || len(t.Subject) > maxClaimBytes || len(t.Issuer) > maxClaimBytes:
		return fmt.Sprintf("the subject of a token has from 1 to %d bytes, its issuer at most as many", maxClaimBytes)
	case len(c.JWT) == maxCredentials:
		return fmt.Sprintf("a consumer has at most %d subjects of tokens", maxCredentials)
	}
	c.JWT = append(c.JWT, t)
	return ""
}

func (c *Consumer) addCertificate(s string) string {
	form, wrong := fingerprint(s)
	for _, kind := range [...]string{"san:", "cn:"} {
		if name, ok := strings.CutPrefix(s, kind); ok && name != "" && len(name) <= maxClaimBytes && !hasControl(name) {
			if kind == "san:" && !strings.ContainsAny(name, "/@") { // a DNS name
				name = strings.ToLower(name)
			}
			form, wrong = kind+name, ""
		}
	}
	switch {
	case wrong != "":
		return fmt.Sprintf("%q is no fingerprint of a certificate: %s", clip(s), wrong)
	case len(c.Certificates) == maxCredentials:
		return fmt.Sprintf("a consumer has at most %d certificates", maxCredentials)
	}
	c.Certificates = append(c.Certificates, form)
	return ""
}

// isName says whether s may be a name: letters, digits, and inside of it '.', '_' and '-'.
func isName(s string) bool {
	ok := s != "" && len(s) <= maxNameRunes
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && strings.IndexByte("._-", c) >= 0)
	}
	return ok
}

// roll holds who has which name and credential, since no two may have one in common.
type roll struct {
	names        map[string]Pos
	keys         map[[sha256.Size]byte]string
	keyIDs       map[string]string
	users        map[string]string
	subjects     map[TokenSubject]string
	certificates map[string]string
	signatures   map[string]string
}

func newRoll() *roll {
	return &roll{names: map[string]Pos{}, keys: map[[sha256.Size]byte]string{}, keyIDs: map[string]string{}, users: map[string]string{},
		subjects: map[TokenSubject]string{}, certificates: map[string]string{}, signatures: map[string]string{}}
}

// add enters c, or says whom he cannot be told from.
func (r *roll) add(c *Consumer) string {
	if first, twice := r.names[c.Name]; twice {
		return fmt.Sprintf("consumer %q is given twice; first at %s", c.Name, first)
	}
	if len(r.names) == maxConsumers {
		return fmt.Sprintf("there are more than %d consumers", maxConsumers)
	}
	r.names[c.Name] = c.Pos
	other, wrong := r.addKeys(c)
	if wrong != "" {
		return wrong
	}
	for user := range c.Basic {
		if other == "" {
			other = claim(r.users, []string{user}, c.Name)
		}
	}
	if other == "" {
		other = claim(r.subjects, c.JWT, c.Name)
	}
	if other == "" {
		other = claim(r.certificates, c.Certificates, c.Name)
	}
	for i := range c.Signatures {
		if other == "" {
			other = claim(r.signatures, []string{c.Signatures[i].ID}, c.Name)
		}
	}
	switch other {
	case "":
		return ""
	case c.Name:
		return fmt.Sprintf("consumer %q has a credential twice", c.Name)
	}
	return fmt.Sprintf("consumers %q and %q have a credential in common", clip(other), clip(c.Name))
}

// claim notes whose credentials these are. It gives the name of one who has one of them already.
func claim[K comparable](owners map[K]string, credentials []K, name string) (other string) {
	for _, k := range credentials {
		if owner, taken := owners[k]; taken {
			return owner
		}
		owners[k] = name
	}
	return ""
}

func (w *dumper) consumers(c *Config) {
	if len(c.Consumers) > 0 {
		w.block("consumers:", func() {
			for i := range c.Consumers {
				w.consumer(&c.Consumers[i])
			}
		})
	}
	if c.ConsumersFile.Path != "" {
		w.line("consumers_file: %s", quote(c.ConsumersFile.Path))
	}
}

func (w *dumper) consumer(c *Consumer) {
	if len(c.Groups)+len(c.Roles)+len(c.Tier)+len(c.Tags)+len(c.Tenant)+len(c.Keys)+len(c.Basic)+len(c.JWT)+len(c.Certificates)+len(c.Signatures) == 0 {
		w.line("%s: {}", quote(c.Name))
		return
	}
	w.block(quote(c.Name)+":", func() { w.consumerParts(c) })
}

func (w *dumper) consumerParts(c *Consumer) {
	if len(c.Groups) > 0 {
		w.line("groups: %s", quoteList(c.Groups))
	}
	if len(c.Roles) > 0 {
		w.line("roles: %s", quoteList(c.Roles))
	}
	if c.Tier != "" {
		w.line("tier: %s", quote(c.Tier))
	}
	if len(c.Tags) > 0 {
		w.line("tags: %s", quoteList(c.Tags))
	}
	if c.Tenant != "" {
		w.line("tenant: %s", quote(c.Tenant))
	}
	w.apiKeys(c.Keys)
	if len(c.Basic) > 0 {
		w.block("basic:", func() {
			for _, user := range slices.Sorted(maps.Keys(c.Basic)) {
				p := c.Basic[user]
				w.line("%s: %s", quote(user), quote(p.text()))
			}
		})
	}
	if len(c.JWT) > 0 {
		w.block("jwt:", func() {
			for _, t := range c.JWT {
				w.line("- { issuer: %s, subject: %s }", quote(t.Issuer), quote(t.Subject))
			}
		})
	}
	if len(c.Certificates) > 0 {
		w.line("certificates: %s", quoteList(c.Certificates))
	}
	w.signingKeys(c.Signatures)
}
