package tls

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// reload tries the slot's files again where they changed. It says whether another certificate is in use now. What has expired is taken
// where lenient says so.
func (l *slot) reload(now time.Time, lenient func(*loaded) bool) (changed bool) {
	names := l.source.files()
	if l.good != nil && len(names) == 0 {
		return false
	}
	if l.files != nil {
		fresh := true
		for i, n := range names {
			fresh = fresh && l.files[i].fresh(n)
		}
		if fresh {
			return false
		}
	}
	l.waiting = nil
	files, err := l.read()
	if err != nil {
		l.files, l.problem = nil, err
		return false
	}
	certText, keyText := l.texts(files)
	for _, r := range files {
		r.text = nil
	}
	l.files = files
	if l.good != nil && l.good.digest == digest(certText, keyText) {
		l.problem = nil
		return false
	}
	next, err := l.load(certText, keyText)
	if err == nil && !lenient(next) {
		if over := next.over(now); over != "" {
			err = fmt.Errorf("cannot use %q: %s", l.label(), over)
		}
	}
	if l.problem = err; err != nil {
		return false
	}
	l.good = next
	return true
}

// Reload looks at all files and reads those that changed. A pair that is right and whole replaces its predecessor; of one
// that is not, the predecessor stays and problems says why, at every call until it is mended. Files of a pattern come and
// go with it, but not all at once. changed names the certificates that were replaced, added or removed, by their file.
func (s *Store) Reload() (changed []string, problems []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next := make([]*slot, 0, len(s.slots))
	old, before, slots := map[source]*slot{}, map[*slot]*loaded{}, s.slots
	for _, l := range slots {
		old[l.source], before[l] = l, l.good
	}
	for i := range s.options.Pairs {
		found, err := s.expand(i, maxCertificates-len(next), old)
		if err != nil {
			problems = append(problems, err)
		}
		next = append(next, found...)
	}
	s.renew(next, now)
	for _, l := range next {
		if good, had := before[l]; l.good != nil && (!had || l.good != good) {
			changed = append(changed, l.label())
		}
		delete(old, l.source)
		if l.problem != nil {
			problems = append(problems, l.problem)
		}
	}
	for _, l := range slots {
		if old[l.source] != nil && l.good != nil {
			changed = append(changed, l.label()+" (removed)")
		}
	}
	if len(changed) > 0 {
		s.defaultProblem = s.publish()
	}
	if s.defaultProblem != nil {
		problems = append(problems, s.defaultProblem)
	}
	return changed, problems
}

// renew makes next the slots, even where nothing has changed: a file that was never right comes and goes too. Their files are read again.
func (s *Store) renew(next []*slot, now time.Time) {
	s.slots = next
	renewed := map[*slot]*loaded{}
	for _, l := range next {
		before := l.good
		if l.reload(now, func(*loaded) bool { return before != nil && before.over(now) != "" }) {
			renewed[l] = before
		} else if l.waiting != nil {
			l.good, l.waiting, l.problem = l.waiting, nil, nil
			renewed[l] = before
		}
	}
	s.settle(renewed)
}

// expand gives the slots of one pair as its files are now: those that were there, and new ones.
func (s *Store) expand(pair, most int, old map[source]*slot) (all []*slot, err error) {
	found, err := s.options.Pairs[pair].sources(pair, most)
	if err != nil {
		// Nothing at all matches, as while a volume is not mounted: what was there stays.
		return slices.DeleteFunc(slices.Clone(s.slots), func(l *slot) bool { return l.pair != pair }), err
	}
	for _, src := range found {
		l := old[src]
		if l == nil {
			l = &slot{source: src}
		}
		all = append(all, l)
	}
	return all, nil
}

// Certificate describes one that is in use. Serial and Fingerprint, of the whole by SHA-256, are in hexadecimal, File is
// empty for an inline one. Problem says why a renewal was not taken; a file of a pattern that was never right has nothing but
// Pair, File and Problem.
type Certificate struct {
	Pair                int
	File                string
	Names               []string
	Issuer              string
	NotBefore, NotAfter time.Time
	KeyType             string
	Serial              string
	Fingerprint         string
	Problem             string
	Staple              StapleStatus
}

// Certificates describes all, in the order of the pairs.
func (s *Store) Certificates() []Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Certificate, 0, len(s.slots))
	now := time.Now()
	for _, l := range s.slots {
		c := Certificate{Pair: l.pair, File: l.cert}
		if l.problem != nil {
			c.Problem = l.problem.Error()
		}
		if l.good != nil {
			c.describe(l.good.chain[0])
			c.Staple = s.options.Staples.of(&l.good.status, now)
		}
		all = append(all, c)
	}
	return all
}

// Describe describes a certificate that is not from files.
func Describe(leaf *x509.Certificate) Certificate {
	c := Certificate{Pair: -1}
	c.describe(leaf)
	return c
}

func (c *Certificate) describe(leaf *x509.Certificate) {
	c.Names, c.Issuer = slices.Clone(leaf.DNSNames), leaf.Issuer.String()
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	c.NotBefore, c.NotAfter, c.KeyType = leaf.NotBefore, leaf.NotAfter, keyType(leaf.PublicKey)
	c.Serial, c.Fingerprint = leaf.SerialNumber.Text(16), fmt.Sprintf("%x", sha256.Sum256(leaf.Raw))
}

// Warnings are those of the certificates in use, as of now.
func (s *Store) Warnings() (all []Warning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, l := range s.slots {
		if l.good != nil {
			all = append(all, l.good.warnings(&l.source, s.usage, s.options.Staples != nil || s.options.Client, now)...)
		}
	}
	if !s.options.Client {
		for _, o := range s.overlaps {
			all = append(all, o.warning())
		}
	}
	return all
}
