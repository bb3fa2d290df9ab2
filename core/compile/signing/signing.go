// Package signing keeps the keys that the gateway signs tokens of its own with, and publishes those that verify them (RFC 7517).
//
// A key is published before it signs, for longer than anybody keeps the set of keys, and stays published until the last token that it has
// signed has expired. So whoever verifies by the published set finds the key of every token, whenever keys change: by rotation, by a new
// configuration, or because another process takes over.
package signing

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Spec says which keys there are.
type Spec struct {
	Algorithm Algorithm
	Every     time.Duration // how long a key signs, MinRotation to MaxRotation
	Life      time.Duration // of a token at most, above zero
	// Secret, of MinSecretBytes or more, lets all who have it and the same Algorithm and Every derive the same keys at the same time, so that
	// tokens of any of them are verified by what any of them publishes. nil: keys are random.
	Secret []byte
}

// Bounds of a Spec.
const (
	MinRotation    = time.Minute
	MaxRotation    = 30 * 24 * time.Hour
	MinSecretBytes = 32
)

const (
	// maxCached is how long the published set may be kept at most.
	maxCached = 5 * time.Minute
	// skew is by how much clocks of those who sign and verify may differ, and how late a rotation may be.
	skew = int64(time.Minute / time.Second)
	// maxLead is the longest lead, in seconds.
	maxLead = 2 * int64(maxCached/time.Second)
	// maxKeys bounds those that are published.
	maxKeys = 64
)

func (s *Spec) check() error {
	switch {
	case s.Algorithm != ES256 && s.Algorithm != EdDSA:
		return fmt.Errorf("cannot sign with algorithm %q", s.Algorithm)
	case s.Every < MinRotation || s.Every > MaxRotation:
		return fmt.Errorf("cannot rotate keys every %s: it must be %s to %s", s.Every, MinRotation, MaxRotation)
	case s.Life < time.Second || s.Life > MaxRotation:
		return fmt.Errorf("cannot sign tokens for %s", s.Life)
	case s.Secret != nil && len(s.Secret) < MinSecretBytes:
		return fmt.Errorf("cannot derive keys of %d bytes: it must be %d or more", len(s.Secret), MinSecretBytes)
	}
	return nil
}

// sameKeys says whether the same keys are due for both.
func (s *Spec) sameKeys(o *Spec) bool {
	return s.Algorithm == o.Algorithm && s.Every == o.Every && string(s.Secret) == string(o.Secret) && (s.Secret == nil) == (o.Secret == nil)
}

// every and the like are in seconds.
func (s *Spec) every() int64 { return int64(s.Every / time.Second) }

func (s *Spec) life() int64 { return int64((s.Life + time.Second - 1) / time.Second) }

// cached is how long the published set may be kept.
func (s *Spec) cached() int64 { return int64(min(s.Every/4, maxCached) / time.Second) }

// lead is how long a key is published, at least, before it signs: a set that was fetched just before is fetched again, with room for a
// failure.
func (s *Spec) lead() int64 { return 2 * s.cached() }

// entry is a key with its time. Times are seconds of Unix time.
type entry struct {
	*key
	from int64 // it signs from then until the next one's begins
	life int64 // of its tokens
	own  bool  // it is of the present Spec
}

// Keys are those of one gateway. They outlive configurations, and any goroutine may use them; Sign and Current neither lock nor wait.
type Keys struct {
	mu    sync.Mutex
	spec  Spec
	all   []entry // by from
	early int64   // before which no new key signs: a set that was published under another Spec may be kept for longer than one of this
	wake  chan struct{}

	current atomic.Pointer[published]
}

// published is what is in force. Immutable.
type published struct {
	key    *key // that signs
	set    string
	cached string // Cache-Control
}

// New gives keys as of now. They rotate while Run runs.
func New(spec Spec, now time.Time) (*Keys, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	spec.Secret = slices.Clone(spec.Secret)
	k := &Keys{spec: spec, wake: make(chan struct{}, 1)}
	_, err := k.Rotate(now)
	return k, err
}

// Configure makes spec the one in force. Keys that are new to those who verify begin to sign when they have been published for long enough;
// until then the old ones do. On an error nothing has changed.
func (k *Keys) Configure(spec Spec, now time.Time) error {
	if err := spec.check(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before, all, early := k.spec, slices.Clone(k.all), k.early
	spec.Secret = slices.Clone(spec.Secret)
	k.spec = spec
	for i := range k.all {
		k.all[i].life = max(k.all[i].life, spec.life())
	}
	if !spec.sameKeys(&before) {
		k.early = max(early, now.Unix()+before.lead())
		k.settle(k.all, now.Unix())
	}
	if _, err := k.rotate(now.Unix()); err != nil {
		k.spec, k.all, k.early = before, all, early
		return err
	}
	select {
	case k.wake <- struct{}{}: // Run knows the old times
	default:
	}
	return nil
}

// Run rotates the keys until ctx ends. failed is told of a key that cannot be made: the others go on.
func (k *Keys) Run(ctx context.Context, failed func(error)) {
	for {
		now := time.Now()
		next, err := k.Rotate(now)
		if err != nil {
			failed(err)
		}
		t := time.NewTimer(min(max(next.Sub(now), time.Second), time.Minute)) // the clock may be set
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-k.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// Rotate makes the keys those that are due at now, and says when others are. Calling it again changes nothing.
func (k *Keys) Rotate(now time.Time) (next time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, err := k.rotate(now.Unix())
	return time.Unix(at, 0), err
}

// rotate is Rotate. The caller holds k.mu.
func (k *Keys) rotate(now int64) (next int64, err error) {
	all := slices.Clone(k.all)
	k.early = min(k.early, now+maxLead) // the clock may have been set back
	if k.spec.Secret == nil {
		all, err = k.extend(all, now)
	} else {
		all, err = k.derived(all, now)
	}
	if err != nil {
		return now + 1, err
	}
	next = now + k.spec.every()
	kept := all[:0]
	for i, e := range all {
		if ends := until(all, i) + e.life + skew; i+1 == len(all) || ends > now {
			kept = append(kept, e)
			next = earlier(next, now, ends)
		}
		next = earlier(next, now, e.from)
	}
	k.all = kept[max(0, len(kept)-maxKeys):]
	k.publish(now)
	return next, nil
}

func earlier(next, now, at int64) int64 {
	if at > now {
		return min(next, at)
	}
	return next
}

// until is when a key signs no more.
func until(all []entry, i int) int64 {
	if i+1 < len(all) {
		return all[i+1].from
	}
	return maxTime
}

// maxTime is past any time that is told.
const maxTime = 1 << 40

// extend sees to it that there is a random key that signs, and one that is published already and signs after it.
func (k *Keys) extend(all []entry, now int64) ([]entry, error) {
	every, soonest := k.spec.every(), max(now+k.spec.lead(), k.early)
	if len(all) > 0 && all[0].from > now { // the clock was set back
		all[0].from = now
	}
	if n := len(all); n > 1 && all[n-1].own && all[n-1].from > now {
		// Keys may have come to change sooner, or the clock was set back.
		all[n-1].from = min(all[n-1].from, max(soonest, all[n-2].from+every))
	}
	for len(all) == 0 || all[len(all)-1].from <= now {
		made, err := newKey(k.spec.Algorithm)
		if err != nil {
			return nil, err
		}
		e := entry{key: made, from: now, life: k.spec.life(), own: true}
		if n := len(all); n > 0 {
			e.from = soonest
			if all[n-1].own {
				e.from = max(e.from, all[n-1].from+every)
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// derived gives the keys of the epoch before now, of now's and of the next, besides those that are of another Spec. All who have the secret
// have the same, and those whose clocks are ahead are understood.
func (k *Keys) derived(all []entry, now int64) ([]entry, error) {
	every := k.spec.every()
	epoch := now / every
	next := max(0, epoch-1)
	all = slices.DeleteFunc(all, func(e entry) bool {
		if e.own && e.epoch <= epoch+1 {
			next = max(next, e.epoch+1)
		}
		return e.own && e.epoch > epoch+1 // the clock was set back
	})
	for ; next <= epoch+1; next++ {
		made, err := deriveKey(&k.spec, next)
		if err != nil {
			return nil, err
		}
		all = append(all, entry{key: made, from: max(next*every, k.early), life: k.spec.life(), own: true})
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.epoch, b.epoch)) })
	return all, nil
}

// settle makes keys that signed under another Spec, or in another process, those of k. Of the others those that have not signed yet are
// forgotten. The caller holds k.mu, and rotates.
func (k *Keys) settle(old []entry, now int64) {
	s := &k.spec
	due := map[string]bool{} // ids of keys that are derived
	if s.Secret != nil {
		for epoch := max(0, now/s.every()-1); epoch <= now/s.every()+1; epoch++ {
			one, err := deriveKey(s, epoch)
			if err != nil {
				break // rotate says so
			}
			due[one.id] = true
		}
		k.early = max(k.early, now+s.lead())
	}
	signs := signing(old, now)
	k.all = make([]entry, 0, len(old))
	for i, e := range old {
		if e.own = due[e.id] || s.Secret == nil && e.epoch == random && e.alg == s.Algorithm; e.own || i <= signs {
			k.all = append(k.all, e)
		}
	}
}

// signing is which of all signs at now.
func signing(all []entry, now int64) (i int) {
	for i+1 < len(all) && all[i+1].from <= now {
		i++
	}
	return i
}

// publish puts what is there in force.
func (k *Keys) publish(now int64) {
	var set strings.Builder
	set.WriteString(`{"keys":[`)
	for i, e := range k.all {
		if i > 0 {
			set.WriteString(",")
		}
		set.WriteString(e.public)
	}
	set.WriteString("]}\n")
	next := &published{key: k.all[signing(k.all, now)].key, set: set.String(), cached: fmt.Sprintf("public, max-age=%d", k.spec.cached())}
	if was := k.current.Load(); was == nil || *was != *next {
		k.current.Store(next)
	}
}

// Current is the set of keys that verify, and for how long it may be kept, as Cache-Control says it.
func (k *Keys) Current() (set, cacheControl string) {
	p := k.current.Load()
	return p.set, p.cached
}

// State is what a key is there for.
type State string

const (
	StateNext    State = "next"    // published, and will sign
	StateSigning State = "signing" // signs
	StateRetired State = "retired" // verifies what it has signed
)

// Status is one key, without what is secret.
type Status struct {
	ID        string
	Algorithm Algorithm
	State     State
	From      time.Time // it signs, or will
	Until     time.Time // it is published; zero: that is not known yet
}

// Status tells of all keys as of now.
func (k *Keys) Status(now time.Time) (all []Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	signs := signing(k.all, now.Unix())
	for i, e := range k.all {
		one := Status{ID: e.id, Algorithm: e.alg, State: StateSigning, From: time.Unix(e.from, 0)}
		switch {
		case i < signs:
			one.State = StateRetired
		case i > signs:
			one.State = StateNext
		}
		if end := until(k.all, i); end < maxTime {
			one.Until = time.Unix(end+e.life+skew, 0)
		}
		all = append(all, one)
	}
	return all
}
