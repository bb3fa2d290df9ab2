// Package tls is what a gateway needs around crypto/tls, imported as cryptotls here and by all who use both: certificates
// chosen by name and renewed from files, session ticket keys that rotate, client certificates with revocation lists, RSA
// signatures made elsewhere than where the handshake runs. Plain data goes in, *cryptotls.Config comes out. It knows no HTTP
// message, no event loop and no configuration language.
//
// A Store holds the certificates of one listener and a ClientTrust the authorities for those of its clients. NewServerConfig
// joins them with TicketKeys, and NewClientConfig is for connections to upstreams. Store, ClientTrust and TicketKeys live
// longer than the configurations made from them and change beneath them: a renewed certificate, revocation list or ticket
// key needs no new configuration.
//
// No goroutine is started here. Watch and Run last until their context ends, on a goroutine of the caller's.
package tls

import (
	cryptotls "crypto/tls"
	"fmt"
)

// minVersion reads a configured version: "1.2", which is also the default, or "1.3".
func minVersion(text string) (uint16, error) {
	switch text {
	case "", "1.2":
		return cryptotls.VersionTLS12, nil
	case "1.3":
		return cryptotls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("cannot use TLS version %q: it is neither 1.2 nor 1.3", text)
}

func curves() []cryptotls.CurveID {
	return []cryptotls.CurveID{cryptotls.X25519MLKEM768, cryptotls.X25519, cryptotls.CurveP256, cryptotls.CurveP384}
}

// checkALPN wants what crypto/tls can send: 1 to 255 bytes each, RFC 7301, section 3.1, and none twice.
func checkALPN(protocols []string) error {
	seen := map[string]bool{}
	for _, p := range protocols {
		if len(p) == 0 || len(p) > 255 {
			return fmt.Errorf("cannot offer protocol %q: its name must have 1 to 255 bytes", p)
		}
		if seen[p] {
			return fmt.Errorf("cannot offer protocol %q: it is listed twice", p)
		}
		seen[p] = true
	}
	return nil
}
