package core

import (
	"crypto/sha256"
	"errors"
	"math"
	"sync/atomic"
)

// Consumer is somebody who has proved who he is, as policies and upstreams are told of him. Immutable.
type Consumer struct {
	Name   string   // fit for a field's value: visible ASCII, at most 256 bytes
	Groups []string // in no order
	Roles  []string // likewise: what he may do, as the policy says that knows him, or the configuration
	Tier   string   // what he has agreed on, such as how much he may use; "": none
	Tags   []string
	Tenant string // to whom he belongs, with others; "": to nobody
	User   string // for whom the credential stands by which he is known: a token's subject, a login's user name; "": it names nobody
	KeyID  string // of the API key by which he is known, see APIKey; "": it has none
}

// In says whether c is in a group.
func (c *Consumer) In(group string) bool {
	for _, g := range c.Groups {
		if g == group {
			return true
		}
	}
	return false
}

// Has says whether c has a role.
func (c *Consumer) Has(role string) bool {
	for _, r := range c.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// Password is what is kept of a password. Immutable.
type Password struct {
	Bcrypt string // the whole of a bcrypt hash; "": argon2id, with what follows

	MemoryKiB, Rounds uint32
	Lanes             uint8
	Salt, Sum         []byte
}

// APIKey is what is kept of an API key. Immutable.
type APIKey struct {
	Sum [sha256.Size]byte // its SHA-256
	ID  string            // public: the key begins with it, a separator follows, and then what is secret; at most 255 bytes; "": it has none
}

// KeySeparators are the bytes of which one stands behind the id of an API key.
const KeySeparators = "_-."

// TokenSubject is whom the tokens of an issuer stand for. Issuer "": of any issuer that a policy accepts.
type TokenSubject struct{ Issuer, Subject string }

// ConsumerSpec is a consumer with his credentials.
type ConsumerSpec struct {
	Consumer
	Keys         []APIKey
	Passwords    map[string]Password // by user name
	Subjects     []TokenSubject
	Fingerprints []string       // of certificates, as in Identity
	CertNames    []string       // alternative names of certificates, as in Identity
	CommonNames  []string       // of their subjects
	SigningKeys  map[string]any // by key id: a secret, []byte, or a public key of crypto/rsa, crypto/ecdsa or crypto/ed25519
}

// Signer is whose messages a key signs. Immutable.
type Signer struct {
	Consumer *Consumer
	Key      any // as in ConsumerSpec.SigningKeys
}

// Login is a user name's password, and whose it is. Immutable.
type Login struct {
	Consumer *Consumer
	Password Password
}

// Directory finds consumers by their credentials. It is immutable: a lookup neither locks, nor allocates, nor takes longer the
// more there are. What it compares are hashes, of which nobody can choose a part that he does not know the whole of, so how
// long a lookup takes tells nothing about the credentials of others.
type Directory struct {
	names        map[string]*Consumer
	keys         keyTable
	logins       map[string]*Login
	subjects     map[TokenSubject]*Consumer
	fingerprints map[string]*Consumer
	certNames    map[string]*Consumer // alternative names
	commonNames  map[string]*Consumer
	signers      map[string]*Signer
}

var (
	errShared = errors.New("cannot make a directory: two consumers have a name or a credential in common")
	errLongID = errors.New("cannot make a directory: the id of a key has more than 255 bytes")
)

// NewDirectory gives the directory of all. No two may have a name or a credential in common, and ids of keys are bounded.
func NewDirectory(all []ConsumerSpec) (*Directory, error) {
	keys := 0
	for i := range all {
		keys += len(all[i].Keys)
	}
	d := &Directory{
		names:        make(map[string]*Consumer, len(all)),
		keys:         newKeyTable(keys),
		logins:       map[string]*Login{},
		subjects:     map[TokenSubject]*Consumer{},
		fingerprints: map[string]*Consumer{},
		certNames:    map[string]*Consumer{},
		commonNames:  map[string]*Consumer{},
		signers:      map[string]*Signer{},
	}
	count := [8]int{}
	for i := range all {
		s := &all[i]
		c := &s.Consumer
		d.names[c.Name] = c
		for j := range s.Keys {
			if len(s.Keys[j].ID) > math.MaxUint8 {
				return nil, errLongID
			}
			d.keys.put(&s.Keys[j], c)
		}
		for user, p := range s.Passwords {
			known := *c
			known.User = user
			d.logins[user] = &Login{Consumer: &known, Password: p}
		}
		for _, t := range s.Subjects {
			d.subjects[t] = c
		}
		for _, f := range s.Fingerprints {
			d.fingerprints[f] = c
		}
		for _, n := range s.CertNames {
			d.certNames[n] = c
		}
		for _, n := range s.CommonNames {
			d.commonNames[n] = c
		}
		for id, key := range s.SigningKeys {
			d.signers[id] = &Signer{c, key}
		}
		count[0]++
		count[1] += len(s.Keys)
		count[2] += len(s.Passwords)
		count[3] += len(s.Subjects)
		count[4] += len(s.Fingerprints)
		count[5] += len(s.SigningKeys)
		count[6] += len(s.CertNames)
		count[7] += len(s.CommonNames)
	}
	if count != [8]int{len(d.names), len(d.keys.entries), len(d.logins), len(d.subjects), len(d.fingerprints), len(d.signers),
		len(d.certNames), len(d.commonNames)} {
		return nil, errShared
	}
	return d, nil
}

// Len is the number of consumers.
func (d *Directory) Len() int { return len(d.names) }

// Named is the consumer of that name, nil when there is none.
func (d *Directory) Named(name string) *Consumer { return d.names[name] }

// ByKey is whose API key it is, nil when it is nobody's, or does not begin with the id that stands beside its hash. The key itself is
// compared with nothing, only its hash is, and the public beginning of one that is right.
func (d *Directory) ByKey(key []byte) *Consumer {
	sum := sha256.Sum256(key)
	e := d.keys.find(&sum)
	if e == nil || !e.begins(key) {
		return nil
	}
	return e.owner
}

// Login is what is known of a user name, nil for nothing.
func (d *Directory) Login(user []byte) *Login { return d.logins[string(user)] }

// BySubject is for whom a token of issuer stands, nil when it is for nobody.
func (d *Directory) BySubject(issuer, subject string) *Consumer {
	if c := d.subjects[TokenSubject{issuer, subject}]; c != nil {
		return c
	}
	return d.subjects[TokenSubject{"", subject}]
}

// ByCertificate is whose certificate it is, nil when it is nobody's: by its fingerprint, else by the first of its alternative names that
// is somebody's, else by its subject's common name.
func (d *Directory) ByCertificate(id *Identity) *Consumer {
	if c := d.fingerprints[id.Fingerprint]; c != nil {
		return c
	}
	for _, n := range id.Names {
		if c := d.certNames[n]; c != nil {
			return c
		}
	}
	return d.commonNames[id.CommonName]
}

// Signer is whose key has that id, nil when it is nobody's.
func (d *Directory) Signer(keyID string) *Signer { return d.signers[keyID] }

// Consumers are those of a configuration as they are now: their file may change while it is in force.
type Consumers struct{ now atomic.Pointer[Directory] }

// NewConsumers gives those of d.
func NewConsumers(d *Directory) *Consumers {
	c := &Consumers{}
	c.now.Store(d)
	return c
}

// Directory is the one in force. An exchange asks once for each decision.
func (c *Consumers) Directory() *Directory { return c.now.Load() }

// Switch puts d in force for the lookups from now on.
func (c *Consumers) Switch(d *Directory) { c.now.Store(d) }
