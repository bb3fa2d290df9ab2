package compile

import (
	cryptotls "crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/tls"
)

// sessionsKept is how many sessions of an upstream can be resumed.
const sessionsKept = 256

// alpnOf names a protocol that an encrypted upstream can be spoken to with.
func alpnOf(protocol string) string {
	if protocol == "h2" {
		return "h2"
	}
	return "http/1.1"
}

// maxCABytes bounds the file of an upstream's authorities.
const maxCABytes = 16 << 20

// upstreamTLS is how one upstream is spoken to. As long as nothing about it changes it is the same over reloads, and so
// connections made with it are kept.
type upstreamTLS struct {
	identity string // all that it was made from, but for the client's certificate, which is renewed in place
	config   *cryptotls.Config
	store    *tls.Store // of the client's certificate; nil: none
}

// secure prepares the TLS of an upstream, whose warnings c is told; nil: it has none.
func (c *Compiled) secure(u *config.Upstream, before *upstreamTLS) (*upstreamTLS, error) {
	t := u.TLS
	if t == nil {
		return nil, nil
	}
	refuse := func(err error) (*upstreamTLS, error) {
		return nil, &certificateError{fmt.Errorf("%s: upstream %q: %w", t.Pos, u.Name, err)}
	}
	o := tls.ClientOptions{ServerName: t.ServerName, PinnedSPKI: t.Pins, MinVersion: t.MinVersion, ALPN: []string{alpnOf(u.Protocol)},
		InsecureSkipVerify: t.Insecure, Sessions: sessionsKept}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return refuse(tls.Unreadable(t.CA, err))
		}
		if len(text) > maxCABytes {
			return refuse(fmt.Errorf("cannot use %q: it is larger than %d bytes", t.CA, maxCABytes))
		}
		o.CAPEM = string(text)
	}
	s := &upstreamTLS{identity: fmt.Sprintf("%q %q %s", o.ALPN, o.CAPEM, saysOfTLS(t))}
	if before != nil && before.identity == s.identity {
		if before.store != nil {
			before.store.Reload()
		}
		return before, nil
	}
	if t.Certificate != nil {
		var warnings []tls.Warning
		var err error
		own := tls.Options{Pairs: []tls.Pair{pairOf(t.Certificate)}, Client: true, Starting: c.first}
		if before != nil {
			own.Before = before.store
		}
		if s.store, warnings, err = tls.NewStore(own); err != nil {
			return nil, &certificateError{fmt.Errorf("%s: upstream %q: %w", t.Certificate.Pos, u.Name, err)}
		}
		o.Store = s.store
		for _, w := range warnings {
			c.warn(Warning{At: t.Certificate.Pos, Message: "certificate", Noun: "upstream", Name: u.Name, File: w.File, Text: w.Text, Severe: severe(w.Kind)})
		}
	}
	var warnings []tls.Warning
	var err error
	if s.config, warnings, err = tls.NewClientConfig(o); err != nil {
		return refuse(err)
	}
	if t.CA == "" && !t.Insecure { // read now: no loop may wait for files
		if s.config.RootCAs, err = x509.SystemCertPool(); err != nil {
			return refuse(fmt.Errorf("cannot read the system's authorities: %w", err))
		}
	}
	for _, w := range warnings {
		c.warn(Warning{At: t.Pos, Message: "upstream without verification", Noun: "upstream", Name: u.Name, Text: w.Text})
	}
	return s, nil
}

// saysOfTLS is all that a configuration says, but for the authorities.
func saysOfTLS(t *config.UpstreamTLS) string {
	return fmt.Sprintf("%q %q %q %v %q", t.ServerName, t.Pins, t.MinVersion, t.Insecure, place(t.Certificate))
}

// place says where a certificate comes from.
func place(c *config.Certificate) string {
	if c == nil {
		return ""
	}
	return c.Cert + "\x00" + c.Key.Reveal()
}
