package compile

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/tls/acme"
)

// closePatience is how long the end of the process waits for issuers, of which one may wait for an authority's answer.
const closePatience = 3 * time.Second

// issuerKey identifies an issuer by all that it is made from.
type issuerKey [sha256.Size]byte

// issuing is an ACME issuer. Listeners that say the same share it, and it outlives configurations as long as one of them
// names it.
type issuing struct {
	issuer    *acme.Issuer
	directory string
	http01    bool
	rule      string // of names on demand; "": there is none
}

// issuersOf builds those of the listeners of c, of which the ones in force stay as they are. Nothing is started here.
func (r *Registry) issuersOf(c *Compiled) error {
	for i := range c.Config.Listeners {
		l := &c.Config.Listeners[i]
		if l.TLS == nil || l.TLS.ACME == nil {
			continue
		}
		key := keyOf(l.TLS)
		c.issuerOf[l.Name] = key
		if c.issuers[key] != nil {
			continue
		}
		if now := r.issuers[key]; now != nil {
			c.issuers[key] = now
			continue
		}
		made, err := r.newIssuing(l.TLS)
		if err != nil {
			return fmt.Errorf("%s: %w", l.TLS.ACME.Pos, err)
		}
		c.issuers[key] = made
	}
	return nil
}

// keyOf is of everything that an issuer is made from, the file of authorities included as it is now.
func keyOf(t *config.TLS) issuerKey {
	a := t.ACME
	authorities := ""
	if at, err := os.Stat(a.CA); err == nil {
		authorities = fmt.Sprint(at.Size(), at.ModTime().UnixNano())
	}
	names := slices.Sorted(slices.Values(a.Names))
	text := fmt.Appendf(nil, "%q %q %q %q %q %q %t %t %t %q", a.Email, a.Directory, a.CA, authorities, names, a.Storage, a.HTTP01, a.TLSALPN01, t.OCSP, ruleOf(a))
	if e := a.ExternalAccount; e != nil {
		text = fmt.Appendf(text, " %q %q", e.KeyID, e.HMAC.Reveal())
	}
	return sha256.Sum256(text)
}

// ruleOf tells rules for names on demand apart.
func ruleOf(a *config.ACME) string {
	if a.OnDemand == nil {
		return ""
	}
	return fmt.Sprintf("%q %q", a.OnDemand.Ask, a.OnDemand.Allow)
}

func (r *Registry) newIssuing(t *config.TLS) (*issuing, error) {
	a := t.ACME
	if r.counters[a.Directory] == nil {
		r.counters[a.Directory] = &acme.Counters{}
	}
	o := acme.Options{Email: a.Email, Directory: a.Directory, CAFile: a.CA, Storage: a.Storage, Names: a.Names,
		NoHTTP01: !a.HTTP01, NoTLSALPN01: !a.TLSALPN01, NoStaples: !t.OCSP, Counters: r.counters[a.Directory]}
	if e := a.ExternalAccount; e != nil {
		o.ExternalAccount = &acme.ExternalAccount{KeyID: e.KeyID, HMAC: e.HMAC.Reveal()}
	}
	if r.log != nil {
		o.Log = r.log.With("directory", a.Directory)
	}
	var err error
	switch d := a.OnDemand; {
	case d == nil:
	case d.Ask != "":
		o.OnDemand, err = acme.AskURL(d.Ask)
	default:
		o.OnDemand, err = acme.AllowNames(d.Allow)
	}
	if err != nil {
		return nil, err
	}
	issuer, err := acme.New(o)
	if err != nil {
		return nil, err
	}
	return &issuing{issuer: issuer, directory: a.Directory, http01: a.HTTP01, rule: ruleOf(a)}, nil
}

// putIssuers starts the issuers of c that are new, with what those in force know, and ends those that c has not. These go on
// giving what they have in memory to handshakes that began with them.
func (r *Registry) putIssuers(c *Compiled) {
	for key, next := range c.issuers {
		if r.issuers[key] != nil {
			continue
		}
		for _, before := range r.issuers {
			next.issuer.Inherit(before.issuer, next.rule == before.rule)
		}
		if err := next.issuer.Start(context.Background()); err != nil {
			r.log.Error("no certificates are obtained", "directory", next.directory, "error", err)
		}
	}
	for key, before := range r.issuers {
		if c.issuers[key] == nil {
			r.closing.Go(before.issuer.Close) // it may wait for an answer of the authority
		}
	}
	r.issuers = c.issuers
}

// closeIssuers ends all, and waits for them, but not for long.
func (r *Registry) closeIssuers(log *slog.Logger) {
	for _, i := range r.issuers {
		r.closing.Go(i.issuer.Close)
	}
	closed := make(chan struct{})
	go func() {
		r.closing.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closePatience):
		log.Warn("an ACME authority is not waited for any longer")
	}
}

// Authority is what is known of one that certificates are got from.
type Authority struct {
	Directory string
	Counters  *acme.Counters
}

// authorities are those of c, sorted.
func (r *Registry) authorities(c *Compiled) (all []Authority) {
	seen := map[string]bool{}
	for _, i := range c.issuers {
		if !seen[i.directory] {
			seen[i.directory] = true
			all = append(all, Authority{i.directory, r.counters[i.directory]})
		}
	}
	slices.SortFunc(all, func(a, b Authority) int { return strings.Compare(a.Directory, b.Directory) })
	return all
}
