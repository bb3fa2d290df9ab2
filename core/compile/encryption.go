package compile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/tls"
	"github.com/sluice-gateway/sluice/tls/acme"
)

// watchEvery is how often the files of certificates and revocation lists are looked at.
const watchEvery = 5 * time.Second

// Encryption is the TLS of one listener: its certificates, which follow their files in the background, and the keys of its
// session tickets, which outlive configurations.
type Encryption struct {
	Listener string
	Store    *tls.Store
	Tickets  *tls.TicketKeys // nil: sessions are not resumed
	Issuer   *acme.Issuer    // nil: certificates are from files only
	trust    *tls.ClientTrust
	settings *listen.TLS
	spec     *config.TLS
	quit     context.CancelFunc // ends the background; nil: there is none
	done     sync.WaitGroup
}

// encrypt reads the certificates of a listener. issued are those that are got for it; nil: none are.
func (r *Registry) encrypt(spec *config.Listener, issued *issuing) (*Encryption, error) {
	t, log, before := spec.TLS, r.log, r.encrypted[spec.Name]
	options := tls.Options{Default: t.Default, RefuseUnknown: t.Unknown == "refuse", Partial: issued != nil}
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
	e := &Encryption{Listener: spec.Name, spec: t}
	var warnings, more []tls.Warning
	var err error
	if e.Store, warnings, err = tls.NewStore(options); err != nil {
		return nil, certificateErrors(t, err)
	}
	if a := t.ClientAuth; a != nil {
		if e.trust, more, err = tls.NewClientTrust(tls.ClientTrustOptions{CAFile: a.CA, CRLFiles: a.CRL}); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Pos, err)
		}
		warnings = append(warnings, more...)
	}
	if log != nil {
		for _, w := range warnings {
			log.Warn("certificate", "listener", spec.Name, "position", positionOf(t, w.Pair), "file", w.File, "warning", w.Text)
		}
	}
	if e.Tickets, err = ticketKeys(t, before); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Pos, err)
	}
	server := tls.ServerOptions{Store: e.Store, MinVersion: t.MinVersion, Clients: e.trust, Tickets: e.Tickets,
		TicketScope: ticketScope(spec), Offload: loop.Offload}
	var names core.Names = e.Store
	if issued != nil {
		server.Joined = tls.Join(e.Store, issued.issuer, fallback, t.Timeout)
		server.Challenges = t.ACME.TLSALPN01
		e.Issuer, names = issued.issuer, server.Joined
	}
	if spec.Protocols.H2 {
		server.ALPN = append(server.ALPN, "h2")
	}
	if spec.Protocols.H1 {
		server.ALPN = append(server.ALPN, "http/1.1")
	}
	if t.ClientAuth != nil {
		server.ClientAuth = t.ClientAuth.Mode
	}
	c, err := tls.NewServerConfig(server)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Pos, err)
	}
	e.settings = &listen.TLS{Config: c, Names: names, Timeout: t.Timeout, Handshakes: t.Handshakes}
	if t.Rate > 0 {
		e.settings.Rate = max(t.Rate/max(len(r.workers), 1), 1)
	}
	return e, nil
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
func ticketScope(spec *config.Listener) string {
	a := spec.TLS.ClientAuth
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
	if e.trust != nil {
		e.done.Go(func() { e.trust.Watch(ctx, watchEvery, report) })
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
