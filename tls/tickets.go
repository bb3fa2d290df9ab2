package tls

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

const (
	defaultRotation = 12 * time.Hour
	minRotation     = time.Minute
	maxRotation     = 7 * 24 * time.Hour // crypto/tls resumes no older session
	minSecretBytes  = 32

	// acceptedKeys is how many keys are accepted: the one in use and two before it.
	acceptedKeys = 3
	// runEvery bounds how late a rotation is after the clock was set or the machine slept.
	runEvery = time.Minute

	// exported is what Export begins with; the number is the version of the format.
	exported = "sluice-ticket-keys-1\n"
	// exportedKeyBytes is when it was made, in Unix seconds, and the key.
	exportedKeyBytes = 8 + 32
	// maxExported is more keys than Export ever gives: those of a derived kind, and of another before it.
	maxExported = 2 * (acceptedKeys + 1)
)

// TicketOptions say where ticket keys come from.
type TicketOptions struct {
	// Every is how long a key is in use, 1 min to 7 days; 0: 12 h. Two times longer it is accepted.
	Every time.Duration
	// Secret, of 32 bytes or more, lets all who have it and the same Every derive the same keys at the same time, so that any of
	// them resumes the sessions of the others. nil: keys are random.
	Secret []byte
}

// ticketKey is one key. made is when its time of use began, in Unix seconds.
type ticketKey struct {
	made int64
	key  [32]byte
}

// bound is a configuration that uses the keys. It is held weakly: it ends with the snapshot that it belongs to.
type bound struct {
	config weak.Pointer[cryptotls.Config]
	scope  string
}

// TicketKeys are the keys that session tickets are encrypted with, RFC 5077 and RFC 8446, section 4.6.1. They bound forward
// secrecy: who learns a key can read the recorded connections of TLS 1.2 that it resumed, so keys are forgotten soon. It
// outlives configurations, and may be used by any goroutine.
type TicketKeys struct {
	every  int64 // seconds
	secret []byte

	mu     sync.Mutex
	random []ticketKey // own or imported, the newest first; with a secret imported ones only
	set    []ticketKey // what the configurations have
	bound  []bound

	full, resumed atomic.Uint64
}

// NewTicketKeys gives keys as of now. They rotate while Run runs.
func NewTicketKeys(o TicketOptions) (*TicketKeys, error) {
	if o.Every == 0 {
		o.Every = defaultRotation
	}
	if o.Every < minRotation || o.Every > maxRotation {
		return nil, fmt.Errorf("cannot rotate ticket keys every %s: it must be %s to %s", o.Every, minRotation, maxRotation)
	}
	if o.Secret != nil && len(o.Secret) < minSecretBytes {
		return nil, fmt.Errorf("cannot use a ticket secret of %d bytes: it must have %d or more", len(o.Secret), minSecretBytes)
	}
	t := &TicketKeys{every: int64(o.Every / time.Second), secret: slices.Clone(o.Secret)}
	return t, t.Rotate(time.Now())
}

// Run rotates the keys until ctx ends.
func (t *TicketKeys) Run(ctx context.Context) error {
	ticker := time.NewTicker(runEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if err := t.Rotate(now); err != nil {
				return err
			}
		}
	}
}

// Rotate makes the keys those that are due at now; Run does so each minute. Calling it again changes nothing.
func (t *TicketKeys) Rotate(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	due, err := t.due(now.Unix())
	if err != nil {
		return err
	}
	t.bound = slices.DeleteFunc(t.bound, func(b bound) bool { return b.config.Value() == nil })
	if slices.Equal(due, t.set) {
		return nil
	}
	t.set = due
	for _, b := range t.bound {
		if err := t.apply(b); err != nil {
			return err
		}
	}
	return nil
}

// due gives the keys for now: the first encrypts, all decrypt.
func (t *TicketKeys) due(now int64) (keys []ticketKey, err error) {
	t.random = slices.DeleteFunc(t.random, func(k ticketKey) bool { return now-k.made >= acceptedKeys*t.every })
	if t.secret == nil {
		// A key from the future is of before the clock was set back: it is as good as a new one for a rotation at most.
		if len(t.random) == 0 || now-t.random[0].made >= t.every || t.random[0].made-now >= t.every {
			k := ticketKey{made: now}
			_, _ = rand.Read(k.key[:]) // never fails
			t.random = slices.Insert(t.random, 0, k)
		}
		t.random = t.random[:min(len(t.random), maxExported)]
		return slices.Clone(t.random), nil
	}
	epoch := now / t.every
	// The next one too, for those of the fleet whose clock is ahead.
	for _, e := range []int64{epoch, epoch - 1, epoch - 2, epoch + 1} {
		k, err := t.derive(e)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	for _, k := range t.random {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// derive gives the key of an epoch by HKDF with SHA-256, RFC 5869. The period is part of it: fleets that disagree about it
// share no key by chance.
func (t *TicketKeys) derive(epoch int64) (ticketKey, error) {
	k := ticketKey{made: epoch * t.every}
	b, err := hkdf.Key(sha256.New, t.secret, nil, fmt.Sprintf("sluice session ticket key 1, every %d s, epoch %d", t.every, epoch), len(k.key))
	if err != nil {
		return k, fmt.Errorf("cannot derive ticket key: %w", err)
	}
	copy(k.key[:], b)
	return k, nil
}

// bind gives the configuration the keys, now and at each rotation as long as it is in use.
func (t *TicketKeys) bind(c *cryptotls.Config, scope string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := bound{weak.Make(c), scope}
	t.bound = append(slices.DeleteFunc(t.bound, func(b bound) bool { return b.config.Value() == nil }), b)
	return t.apply(b)
}

func (t *TicketKeys) apply(b bound) error {
	c := b.config.Value()
	if c == nil {
		return nil
	}
	keys := make([][32]byte, len(t.set))
	for i, k := range t.set {
		keys[i] = k.key
		if b.scope == "" {
			continue
		}
		scoped, err := hkdf.Key(sha256.New, k.key[:], nil, "sluice session ticket scope "+b.scope, len(keys[i]))
		if err != nil {
			return fmt.Errorf("cannot derive ticket key: %w", err)
		}
		copy(keys[i][:], scoped)
	}
	c.SetSessionTicketKeys(keys)
	return nil
}

// Export gives the keys for the process that takes over. It is as secret as they are.
func (t *TicketKeys) Export() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := []byte(exported)
	for _, k := range t.set[:min(len(t.set), maxExported)] {
		b = binary.BigEndian.AppendUint64(b, uint64(k.made))
		b = append(b, k.key[:]...)
	}
	return b
}

// Import takes what Export of another process gave. Without a secret the keys replace the own ones; with one they are only
// accepted. Those that are too old are left out.
func (t *TicketKeys) Import(b []byte) error {
	if len(b) < len(exported) || string(b[:len(exported)]) != exported {
		return errors.New("cannot import ticket keys: they are not in a format of this version")
	}
	b = b[len(exported):]
	if len(b)%exportedKeyBytes != 0 || len(b) == 0 || len(b) > maxExported*exportedKeyBytes {
		return fmt.Errorf("cannot import ticket keys: %d bytes are no number of keys from 1 to %d", len(b), maxExported)
	}
	now := time.Now()
	var keys []ticketKey
	for ; len(b) > 0; b = b[exportedKeyBytes:] {
		k := ticketKey{made: int64(binary.BigEndian.Uint64(b))}
		copy(k.key[:], b[8:])
		if age := now.Unix() - k.made; k.made >= 0 && age < acceptedKeys*t.every && age >= -t.every {
			keys = append(keys, k)
		}
	}
	t.mu.Lock()
	if len(keys) > 0 {
		t.random = keys
		slices.SortStableFunc(t.random, func(a, b ticketKey) int { return int(min(1, max(-1, b.made-a.made))) })
	}
	t.mu.Unlock()
	return t.Rotate(now)
}

func (t *TicketKeys) count(resumed bool) {
	if resumed {
		t.resumed.Add(1)
	} else {
		t.full.Add(1)
	}
}

// Handshakes says how many were full and how many resumed, of those that got as far as to be verified.
func (t *TicketKeys) Handshakes() (full, resumed uint64) { return t.full.Load(), t.resumed.Load() }
