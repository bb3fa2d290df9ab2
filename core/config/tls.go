package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// TLS is how a listener's connections are encrypted.
type TLS struct {
	Pos          Pos
	Certificates []Certificate // none: those of ACME only
	ACME         *ACME         // nil: certificates are from files only
	OCSP         bool          // responses are stapled to certificates that name a responder; true
	Default      string        // name whose certificate clients get that ask for an unknown one or for none; "": the first certificate's
	Unknown      string        // what such clients get: default, refuse
	MinVersion   string        // 1.2, 1.3
	Ciphers      []string      // of TLS 1.2, by their names at IANA; none: all with forward secrecy and authenticated encryption
	ClientAuth   *ClientAuth
	Handshakes   int           // at once on one loop; 1024
	Rate         int           // handshakes a second, all loops together; 0: no limit
	Timeout      time.Duration // of a handshake; 10s
	Tickets      Tickets
	Policies     []TLSPolicy // for some server names, instead of the above
	// Passthrough: none is ended here, and of the above only Handshakes, Rate and Timeout hold, for the wait for a server name.
	Passthrough bool
}

// Certificate is where a certificate and its key are.
type Certificate struct {
	Pos  Pos
	Cert string // file, or PEM text if it was given by reference
	Key  Secret // file, or PEM text; "": in the same place as the certificate
	// Inline says that Cert and Key are PEM text.
	Inline bool
}

// ClientAuth asks clients for certificates.
type ClientAuth struct {
	Pos  Pos
	Mode string   // optional, require
	CA   string   // file with the certificates that sign those of clients
	CRL  []string // files of revoked certificates
}

// Tickets are how clients resume sessions.
type Tickets struct {
	Off    bool
	Secret Secret        // shared by a fleet: each member can resume the sessions of the others; "": random keys
	Rotate time.Duration // a new key is used after this; 12h
}

// UpstreamTLS is how an upstream is spoken to.
type UpstreamTLS struct {
	Pos         Pos
	CA          string       // file with the authorities that vouch for the upstream; "": those that the system trusts
	ServerName  string       // that its certificate must be for; "": the endpoint's name
	Pins        []string     // SHA-256 of public keys in base64, one of which must be in the chain; none: any
	Certificate *Certificate // shown where the upstream asks for one; nil: none
	MinVersion  string       // 1.2, 1.3
	Insecure    bool         // nothing is verified but pins
}

const (
	upstreamTLSKeys = "ca server_name pins certificate min_version insecure_skip_verify"

	tlsKeys         = "passthrough certificates acme ocsp default unknown min_version ciphers client_auth handshakes handshake_rate timeout tickets policies"
	maxPEMBytes     = 1 << 20
	maxTicketSecret = 4 << 10
)

func (d *decoder) tls(key string, n ast.Node, l *Listener) {
	t := &TLS{Pos: d.at(n), OCSP: true, Unknown: "default", MinVersion: "1.2", Handshakes: 1024, Timeout: 10 * time.Second, Tickets: Tickets{Rotate: 12 * time.Hour}}
	if s, word := d.resolve(n).(*ast.StringNode); word && s.Value == "passthrough" {
		t.Passthrough, l.TLS = true, t
		return
	}
	named := false
	var policies ast.Node
	var ciphersAt Pos
	var ends []written // what is of TLS that is ended here
	ok := d.mapping(key, n, tlsKeys, func(key string, k, v ast.Node) bool {
		switch key {
		case "passthrough", "handshakes", "handshake_rate", "timeout":
		default:
			ends = append(ends, written{key, d.at(k)})
		}
		switch key {
		case "passthrough":
			d.boolean(key, v, &t.Passthrough)
		case "certificates":
			named = true
			d.list(key, v, func(v ast.Node) { d.certificate(key, v, t) })
		case "acme":
			d.acme(key, v, t)
		case "ocsp":
			on := "on"
			d.word(key, v, "on off", &on)
			t.OCSP = on == "on"
		case "default":
			d.text(key, v, &t.Default)
		case "unknown":
			d.word(key, v, "default refuse", &t.Unknown)
		case "min_version":
			d.version(key, v, &t.MinVersion)
		case "ciphers":
			ciphersAt = d.at(k)
			d.ciphers(key, v, &t.Ciphers)
		case "client_auth":
			d.clientAuth(key, v, t)
		case "handshakes":
			d.integer(key, v, 1, maxCount, &t.Handshakes)
		case "handshake_rate":
			d.rate(key, v, &t.Rate)
		case "timeout":
			d.duration(key, v, time.Millisecond, &t.Timeout)
		case "tickets":
			d.tickets(key, v, &t.Tickets)
		case "policies":
			policies = v
		default:
			return false
		}
		return true
	})
	if t.Passthrough {
		for _, w := range ends {
			d.problemAt(w.pos, "drop it, or pass single names through by routes with passthrough:", "%q has no meaning beside %q: no TLS is ended here", w.key, "passthrough")
		}
		named = true
	}
	if len(t.Ciphers) > 0 && t.MinVersion == "1.3" {
		d.idleCiphers(ciphersAt)
		t.Ciphers = nil
	}
	if policies != nil {
		d.policies("policies", policies, t)
	}
	if ok && !named && t.ACME == nil {
		d.problem(n, "add certificates: [{ cert: site.pem, key: site.key }]", "%q has no %q", key, "certificates")
	}
	l.TLS = t
}

// version takes 1.2 and 1.3, which YAML reads as numbers.
func (d *decoder) version(key string, n ast.Node, to *string) {
	switch s := strings.Trim(n.String(), `"' `); s {
	case "1.2", "1.3":
		*to = s
	default:
		d.problem(n, "1.2 or 1.3", "%q is no version of TLS that is spoken here", key)
	}
}

// rate reads a number a second, such as 500/s.
func (d *decoder) rate(key string, n ast.Node, to *int) {
	var text string
	if !d.text(key, n, &text) {
		return
	}
	number, ok := strings.CutSuffix(text, "/s")
	each, err := strconv.Atoi(number)
	if !ok || err != nil || each < 1 || each > maxCount {
		d.problem(n, "500/s", "%q is no number a second from 1 to %d", key, maxCount)
		return
	}
	*to = each
}

// certificate reads one entry: a bundle with both, a pattern of bundles, or a pair.
func (d *decoder) certificate(key string, n ast.Node, t *TLS) {
	c := Certificate{Pos: d.at(n)}
	if _, pair := d.resolve(n).(*ast.MappingNode); !pair {
		if d.pemOrFile(key, n, &c) {
			t.Certificates = append(t.Certificates, c)
		}
		return
	}
	hasKey, hasCert, valid := false, false, true
	ok := d.mapping(key, n, "cert key", func(key string, _, v ast.Node) bool {
		switch key {
		case "cert":
			hasCert = true
			valid = d.pemOrFile(key, v, &c) && valid
		case "key":
			hasKey = true
			if valid = d.secret(key, v, maxPEMBytes, &c.Key) && valid; !c.Key.IsReference() {
				c.Key = Literal(d.relative(c.Key.Reveal()))
			}
		default:
			return false
		}
		return true
	})
	switch {
	case !ok:
	case !hasCert:
		d.problem(n, "add cert: site.pem", "a certificate has no %q", "cert")
	case !hasKey:
		d.problem(n, "add key: site.key, or write the bundle's name alone", "a certificate has no %q", "key")
	case !valid:
	case c.Inline != c.Key.IsReference():
		d.problem(n, "both as files, or both by reference", "certificate and key stand in different kinds of places")
	default:
		t.Certificates = append(t.Certificates, c)
	}
}

func (d *decoder) pemOrFile(key string, n ast.Node, c *Certificate) bool {
	var s Secret
	if !d.secret(key, n, maxPEMBytes, &s) {
		return false
	}
	c.Cert, c.Inline = s.Reveal(), s.IsReference()
	if !c.Inline {
		if c.Cert == "" {
			d.problem(n, "", "%q names no file", key)
			return false
		}
		c.Cert = d.relative(c.Cert)
	}
	return true
}

// relative makes a file's name one that holds wherever the gateway was started: relative ones are the configuration's neighbours.
func (d *decoder) relative(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.src.name), name)
}

// upstreamTLS reads true, or a map.
func (d *decoder) upstreamTLS(key string, n ast.Node) *UpstreamTLS {
	t := &UpstreamTLS{Pos: d.at(n), MinVersion: "1.2"}
	if b, ok := d.resolve(n).(*ast.BoolNode); ok {
		if b.Value {
			return t
		}
		return nil
	}
	d.mapping(key, n, upstreamTLSKeys, func(key string, _, v ast.Node) bool {
		switch key {
		case "ca":
			if d.text(key, v, &t.CA) {
				t.CA = d.relative(t.CA)
			}
		case "server_name":
			d.text(key, v, &t.ServerName)
		case "pins":
			d.list(key, v, func(v ast.Node) {
				var pin string
				if d.text(key, v, &pin) {
					t.Pins = append(t.Pins, pin)
				}
			})
		case "certificate":
			var one TLS
			if d.certificate(key, v, &one); len(one.Certificates) > 0 {
				t.Certificate = &one.Certificates[0]
			}
		case "min_version":
			d.version(key, v, &t.MinVersion)
		case "insecure_skip_verify":
			d.boolean(key, v, &t.Insecure)
		default:
			return false
		}
		return true
	})
	if t.Insecure && t.CA != "" {
		d.problem(n, "drop one of them", "%q has both %q and %q", key, "ca", "insecure_skip_verify")
	}
	return t
}

func (d *decoder) clientAuth(key string, n ast.Node, t *TLS) {
	a := &ClientAuth{Pos: d.at(n), Mode: "require"}
	ok := d.mapping(key, n, "mode ca crl", func(key string, _, v ast.Node) bool {
		switch key {
		case "mode":
			d.word(key, v, "optional require", &a.Mode)
		case "ca":
			if d.text(key, v, &a.CA) {
				a.CA = d.relative(a.CA)
			}
		case "crl":
			d.list(key, v, func(v ast.Node) {
				var file string
				if d.text(key, v, &file) {
					a.CRL = append(a.CRL, d.relative(file))
				}
			})
		default:
			return false
		}
		return true
	})
	if ok && a.CA == "" {
		d.problem(n, "add ca: clients.pem", "%q has no %q: no client could be known", key, "ca")
	}
	t.ClientAuth = a
}

func (d *decoder) tickets(key string, n ast.Node, t *Tickets) {
	if b, ok := d.resolve(n).(*ast.BoolNode); ok {
		t.Off = !b.Value
		return
	}
	d.mapping(key, n, "secret rotate", func(key string, _, v ast.Node) bool {
		switch key {
		case "secret":
			if d.secret(key, v, maxTicketSecret, &t.Secret) && len(t.Secret.Reveal()) < 32 {
				d.problem(v, "openssl rand -hex 32", "%q is shorter than 32 bytes", key)
			}
			d.confidential(v, key, &t.Secret)
		case "rotate":
			d.duration(key, v, time.Minute, &t.Rotate)
		default:
			return false
		}
		return true
	})
}
