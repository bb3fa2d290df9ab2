package compile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

// KeptKeys is the last good set of keys of a place, for another process.
type KeptKeys struct {
	Text []byte        `json:"text"`           // as it was fetched
	Age  time.Duration `json:"age"`            // since the last fetch that succeeded; an age, so that no clock that is set makes it younger
	Away time.Duration `json:"away,omitempty"` // since the first fetch after it that failed; 0: none has, or that is not told
}

// KeptProvider is the last good description of a provider of logins, with its keys.
type KeptProvider struct {
	Description []byte   `json:"description"`
	Keys        KeptKeys `json:"keys"`
}

// KeptSources are what tokens are verified by, as far as it was fetched: keys by place, providers by issuer. A place that is found by
// discovery goes by its issuer.
type KeptSources struct {
	Places    map[string]KeptKeys     `json:"places,omitempty"`
	Providers map[string]KeptProvider `json:"providers,omitempty"`
}

const (
	// maxKeptKeys bounds what is handed over of keys, in bytes: some thirty places of the largest sets, ten thousand of usual ones.
	maxKeptKeys = 32 << 20
	maxKeysAge  = 10 * 365 * 24 * time.Hour
)

// KeptSources gives what is in force, for another process; all is false if there was more than can be handed over. Files are left out: they
// are read at the start. It may be called from any goroutine.
func (c *Compiled) KeptSources() (k KeptSources, all bool) {
	k, room := KeptSources{map[string]KeptKeys{}, map[string]KeptProvider{}}, maxKeptKeys
	all = true
	for _, s := range c.KeySources() {
		one, known := s.kept()
		if !known || s.isFile() {
			continue
		}
		if room -= len(one.Text); room < 0 {
			return k, false
		}
		k.Places[s.Place] = one
	}
	for _, p := range c.providers {
		d := p.current.Load()
		if d == nil {
			continue
		}
		one, known := d.keys.kept()
		if !known {
			continue
		}
		if room -= len(one.Text) + len(d.text); room < 0 {
			return k, false
		}
		k.Providers[p.issuer] = KeptProvider{d.text, one}
	}
	return k, all
}

// RestoreSources takes over what another process has fetched, before c is in force: tokens are verified also if who issues them is away at
// first. All is fetched anew nevertheless as soon as c is in force. What cannot be used, or is older than its policy allows, is left out, and
// told.
func (c *Compiled) RestoreSources(k KeptSources) error {
	var failed []error
	for _, place := range slices.Sorted(maps.Keys(k.Places)) {
		s := c.keys[place]
		if s == nil || s.isFile() {
			continue
		}
		if err := s.restore(k.Places[place], c.stale[place]); err != nil {
			failed = append(failed, fmt.Errorf("cannot take over the keys of %q: %w", place, err))
		}
	}
	for _, p := range c.providers {
		one, known := k.Providers[p.issuer]
		if !known {
			continue
		}
		if err := p.restore(one); err != nil {
			failed = append(failed, fmt.Errorf("cannot take over the provider %q: %w", p.issuer, err))
		}
	}
	return errors.Join(failed...)
}

// kept gives the keys in force; known is false while there are none.
func (s *KeySource) kept() (k KeptKeys, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == nil {
		return k, false
	}
	k = KeptKeys{Text: s.text, Age: time.Since(s.status.Fetched)}
	if !s.away.IsZero() {
		k.Away = max(time.Since(s.away), 1)
	}
	return k, true
}

// restore puts keys in force before the source is started. They are not if they are older than stale, unless that is 0.
func (s *KeySource) restore(k KeptKeys, stale time.Duration) error {
	switch {
	case k.Age < 0 || k.Age > maxKeysAge || k.Away < 0 || k.Away > maxKeysAge:
		return fmt.Errorf("an age of %v, and %v away, cannot be", k.Age, k.Away)
	case len(k.Text) > keysBytes:
		return fmt.Errorf("%d bytes, want at most %d", len(k.Text), keysBytes)
	case stale > 0 && k.Age > stale:
		return fmt.Errorf("they are %v old, and may be used for %v", k.Age.Round(time.Second), stale)
	}
	set, err := jwt.ParseSet(k.Text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(set)
	s.text = k.Text
	if k.Away > 0 { // how long they stay in force does not begin anew
		s.away = time.Now().Add(-k.Away)
	}
	s.status.Keys, s.status.IDs, s.status.Fetched = set.Len(), set.IDs(), time.Now().Add(-k.Age)
	return nil
}

// restore puts a description in force before the provider is started. It is held against the same rules as one that is fetched.
func (p *provider) restore(k KeptProvider) error {
	if len(k.Description) > serviceBodyBytes {
		return fmt.Errorf("%d bytes, want at most %d", len(k.Description), serviceBodyBytes)
	}
	claims, ok := core.ReadClaims(k.Description)
	if !ok {
		return errDescription
	}
	d, place, err := p.read(claims)
	if err != nil {
		return err
	}
	d.text, d.keys = k.Description, p.keysAt(place)
	if err := d.keys.restore(k.Keys, 0); err != nil {
		return err
	}
	p.current.Store(d)
	return nil
}
