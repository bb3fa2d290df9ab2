package compile

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/tls"
	"github.com/sluice-gateway/sluice/tls/acme"
)

// watchEvery is how often the files of certificates and revocation lists are looked at.
const watchEvery = 5 * time.Second

// ErrCertificate is what errors are that come of certificates, keys, authorities and revocation lists which cannot be read or used.
var ErrCertificate = errors.New("a certificate cannot be used")

// certificateError is an error that is ErrCertificate.
type certificateError struct{ error }

func (e *certificateError) Unwrap() error        { return e.error }
func (e *certificateError) Is(target error) bool { return target == ErrCertificate }

// Encryption is the TLS of one listener: its certificates, which follow their files in the background, and the keys of its
// session tickets, which outlive configurations.
type Encryption struct {
	Listener string
	Store    *tls.Store
	Tickets  *tls.TicketKeys                         // nil: sessions are not resumed
	Issuer   *acme.Issuer                            // nil: certificates are from files only
	trust    map[*config.ClientAuth]*tls.ClientTrust // of the listener and its policies
	settings *listen.TLS
	spec     *config.TLS
	quit     context.CancelFunc // ends the background; nil: there is none
	done     sync.WaitGroup
}

// encrypt reads the certificates of a listener. issued are those that are got for it; nil: none are.
func (r *Registry) encrypt(c *Compiled, spec *config.Listener, issued *issuing) (*Encryption, error) {
	t, before := spec.TLS, r.encrypted[spec.Name]
	options := tls.Options{Default: t.Default, RefuseUnknown: t.Unknown == "refuse", Partial: issued != nil, Starting: c.first}
	if before != nil {
		options.Before = before.Store
	}
	for i := range t.Certificates {
		options.Pairs = append(options.Pairs, pairOf(&t.Certificates[i]))
	}
	if t.OCSP {
		options.Staples = r.staples
	}
	fallback := fallbackOf(t)
	if fallback != "" {
		options.Default = ""
	}
	e := &Encryption{Listener: spec.Name, spec: t, trust: map[*config.ClientAuth]*tls.ClientTrust{}}
	var warnings []tls.Warning
	var err error
	if e.Store, warnings, err = tls.NewStore(options); err != nil {
		return nil, certificateErrors(t, err)
	}
	if e.Tickets, err = ticketKeys(t, before); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Pos, err)
	}
	server := tls.ServerOptions{Store: e.Store, MinVersion: t.MinVersion, Ciphers: t.Ciphers, ALPN: alpn(spec.Protocols), Tickets: e.Tickets,
		TicketScope: ticketScope(t.ClientAuth), Offload: loop.Offload}
	var certificates serves = e.Store
	if issued != nil {
		server.Joined = tls.Join(e.Store, issued.issuer, fallback, t.Timeout)
		e.Issuer, certificates = issued.issuer, server.Joined
	}
	policies, more, err := e.policies(spec, server)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, more...)
	if policies != nil {
		server.Policies = &policies.configs
	}
	server.Challenges = issued != nil && t.ACME.TLSALPN01
	own, more, err := e.config(server, t.ClientAuth, t.Pos)
	if err != nil {
		return nil, err
	}
	for _, w := range append(warnings, more...) {
		c.warn(Warning{At: positionOf(t, w.Pair), Message: "certificate", Noun: "listener", Name: spec.Name, File: w.File, Text: w.Text, Severe: severe(w.Kind)})
	}
	e.settings = &listen.TLS{Config: own, Timeout: t.Timeout, Handshakes: t.Handshakes, Rate: ratePerLoop(t.Rate, len(r.workers))}
	e.settings.Names = &served{certificates: certificates, settings: e.settings, policies: policies, asks: t.ClientAuth != nil}
	return e, nil
}

// config makes a configuration of o for clients who are asked for certificates as a says; nil: they are not.
func (e *Encryption) config(o tls.ServerOptions, a *config.ClientAuth, at config.Pos) (c *cryptotls.Config, warnings []tls.Warning, err error) {
	if a != nil {
		if o.Clients, warnings, err = e.clients(a); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", a.Pos, err)
		}
		o.ClientAuth = a.Mode
	}
	if c, err = tls.NewServerConfig(o); err != nil {
		err = fmt.Errorf("%s: %w", at, err)
	}
	return c, warnings, err
}

// clients reads the files by which a's clients are verified, once for all policies that have a from the listener.
func (e *Encryption) clients(a *config.ClientAuth) (*tls.ClientTrust, []tls.Warning, error) {
	if have := e.trust[a]; have != nil {
		return have, nil, nil
	}
	trust, warnings, err := tls.NewClientTrust(tls.ClientTrustOptions{CAFile: a.CA, CRLFiles: a.CRL})
	if err == nil {
		e.trust[a] = trust
	}
	for i := range warnings {
		warnings[i].Pair = -1 // of no certificate's place
	}
	return trust, warnings, err
}

// alpn names what is spoken, the preferred first.
func alpn(p config.Protocols) (names []string) {
	if p.H2 {
		names = append(names, "h2")
	}
	if p.H1 {
		names = append(names, "http/1.1")
	}
	return names
}

// ratePerLoop is a loop's part of a rate; 0: no limit.
func ratePerLoop(rate, loops int) int {
	if rate == 0 {
		return 0
	}
	return max(rate/max(loops, 1), 1)
}

// fallbackOf is the name whose issued certificate unknown names get; "": what they get is in the files.
func fallbackOf(t *config.TLS) string {
	switch a := t.ACME; {
	case a == nil || t.Unknown == "refuse":
	case slices.Contains(a.Names, strings.ToLower(t.Default)):
		return t.Default
	case t.Default == "" && len(t.Certificates) == 0 && len(a.Names) > 0:
		return a.Names[0]
	}
	return ""
}

// ticketScope keeps a session from being resumed where other clients are let in than where it was made.
func ticketScope(a *config.ClientAuth) string {
	if a == nil {
		return ""
	}
	return a.Mode + " " + a.CA
}

// pairOf names the places of one certificate. A name with a star is a pattern of bundles.
func pairOf(c *config.Certificate) tls.Pair {
	switch {
	case c.Inline:
		return tls.Pair{CertPEM: c.Cert, KeyPEM: c.Key.Reveal()}
	case c.Key.Reveal() == "" && strings.ContainsAny(c.Cert, "*?["):
		return tls.Pair{Glob: c.Cert}
	}
	return tls.Pair{Cert: c.Cert, Key: c.Key.Reveal()}
}

// ticketKeys gives the keys in force as long as nothing is to change about them.
func ticketKeys(t *config.TLS, before *Encryption) (*tls.TicketKeys, error) {
	if t.Tickets.Off {
		return nil, nil
	}
	secret := []byte(t.Tickets.Secret.Reveal())
	if before != nil && before.Tickets != nil && before.spec.Tickets.Rotate == t.Tickets.Rotate &&
		bytes.Equal([]byte(before.spec.Tickets.Secret.Reveal()), secret) {
		return before.Tickets, nil
	}
	o := tls.TicketOptions{Every: t.Tickets.Rotate}
	if len(secret) > 0 {
		o.Secret = secret
	}
	return tls.NewTicketKeys(o)
}

// certificateErrors puts positions before what is wrong with the certificates.
func certificateErrors(t *config.TLS, err error) error {
	var each tls.PairErrors
	if !errors.As(err, &each) {
		return fmt.Errorf("%s: %w", t.Pos, err)
	}
	all := make([]error, len(each))
	for i, one := range each {
		all[i] = fmt.Errorf("%s: %w", positionOf(t, one.Pair), one.Err)
		var overlap *tls.OverlapError
		if errors.As(one.Err, &overlap) && overlap.First != overlap.Second {
			all[i] = fmt.Errorf("%w; first at %s", all[i], positionOf(t, overlap.First))
		}
	}
	return errors.Join(all...)
}

func positionOf(t *config.TLS, pair int) config.Pos {
	if pair >= 0 && pair < len(t.Certificates) {
		return t.Certificates[pair].Pos
	}
	return t.Pos
}

// start follows the files and rotates the keys until stop.
func (e *Encryption) start(log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	e.quit = cancel
	report := func(changed []string, problems []error) {
		reportRenewal(log.With("listener", e.Listener), changed, problems)
	}
	e.done.Go(func() { e.Store.Watch(ctx, watchEvery, report) })
	e.done.Go(func() {
		e.Store.KeepStapled(ctx, func(file string, missing bool, err error) {
			level := slog.LevelWarn
			if missing {
				level = slog.LevelError // clients may refuse the certificate
			}
			log.Log(ctx, level, "certificate not stapled", "listener", e.Listener, "file", file, "error", err)
		})
	})
	for _, trust := range e.trust {
		e.done.Go(func() { trust.Watch(ctx, watchEvery, report) })
	}
	if e.Tickets != nil {
		e.done.Go(func() {
			if err := e.Tickets.Run(ctx); err != nil && ctx.Err() == nil {
				log.Error("session ticket keys rotate no more", "listener", e.Listener, "error", err)
			}
		})
	}
}

func reportRenewal(log *slog.Logger, changed []string, problems []error) {
	for _, name := range changed {
		log.Info("certificate renewed", "file", name)
	}
	for _, err := range problems {
		log.Error("certificate not renewed: the old one stays", "error", err)
	}
}

func (e *Encryption) stop() {
	if e.quit != nil {
		e.quit()
		e.done.Wait()
	}
}
