package compile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

// KeySource keeps the keys of one place as they are now. It fetches them ahead of need, on a goroutine of its own, and outlives
// configurations as long as one of them names the place. While the place is away the last keys that were good stay in force.
type KeySource struct {
	background
	Place   string
	current atomic.Pointer[jwt.KeySet]
	client  *service      // nil: the place is a file
	wake    chan struct{} // a fetch is wanted now; room for one

	mu      sync.Mutex
	pending chan struct{} // closed when the fetch that somebody waits for is over; nil: nobody does
	waiting int
	asked   time.Time     // when an unknown key last made us fetch
	text    []byte        // of the keys in force
	stale   time.Duration // that keys stay in force from away on; 0: for ever
	away    time.Time     // since when no fetch has brought keys; zero: the last one has
	status  KeyStatus
}

// KeyStatus is what is known of a source.
type KeyStatus struct {
	Place     string
	Keys      int
	IDs       []string
	Fetched   time.Time // last with success; zero: never
	Next      time.Time
	Problem   string // of the last fetch; "": none
	Successes uint64
	Failures  uint64
}

const (
	keysFloor      = 30 * time.Second // between fetches, whatever the place says
	keysCeiling    = time.Hour
	keysDefault    = 10 * time.Minute // where the place says nothing
	keysRetry      = time.Second      // after the first failure; twice as long after each further
	keysRetryMost  = time.Minute
	keysFile       = 5 * time.Second // between looks at a file
	keysTimeout    = 10 * time.Second
	keysBytes      = 1 << 20
	unknownEvery   = 10 * time.Second // between fetches because a token names a key that is not known
	unknownWait    = 3 * time.Second  // that such a token waits
	unknownWaiters = 1024
)

// keySource gives the source of a place: the one in force, or a new one, which begins to fetch when it is applied. A file is read at
// once.
func (r *Registry) keySource(c *Compiled, place string) (*KeySource, error) {
	if s := c.keys[place]; s != nil {
		return s, nil
	}
	s := r.keys[place]
	if s == nil {
		s = newKeySource(place)
		if s.isFile() {
			if err := s.fetch(context.Background()); err != nil {
				return nil, err
			}
		}
	}
	c.keys[place] = s
	return s, nil
}

// keepAtMost notes for how long a policy wants the keys of a place to stay in force while it is away. The shortest counts.
func (c *Compiled) keepAtMost(place string, stale time.Duration) {
	if now := c.stale[place]; stale > 0 && (now == 0 || stale < now) {
		c.stale[place] = stale
	}
}

// putKeys starts the sources of c that are new, and ends those that it has not.
func (r *Registry) putKeys(c *Compiled) {
	replace(&r.closing, r.keys, c.keys, func(s *KeySource) { s.start(r.log.With("jwks", s.Place)) })
	for place, s := range c.keys {
		s.mu.Lock()
		s.stale = c.stale[place]
		s.mu.Unlock()
	}
	r.keys = c.keys
}

// replace starts what is new in now, and ends what only before has: in the background, for that may wait for an answer.
func replace[K comparable, S interface{ stop() }](closing *sync.WaitGroup, before, now map[K]S, start func(S)) {
	for k, s := range now {
		if _, stays := before[k]; !stays {
			start(s)
		}
	}
	for k, s := range before {
		if _, stays := now[k]; !stays {
			closing.Go(s.stop)
		}
	}
}

func newKeySource(place string) *KeySource {
	s := &KeySource{Place: place, wake: make(chan struct{}, 1), status: KeyStatus{Place: place}}
	if !s.isFile() {
		s.client = newWebService(&config.Service{Calls: 1, Timeout: keysTimeout}, nil)
		s.client.bodyBytes = keysBytes
	}
	s.current.Store(&jwt.KeySet{})
	return s
}

func (s *KeySource) isFile() bool { return strings.HasPrefix(s.Place, "file:") }

func (s *KeySource) start(log *slog.Logger) {
	s.begin(func(ctx context.Context) { s.run(ctx, log) })
}

func (s *KeySource) stop() {
	s.background.stop()
	if s.client != nil {
		s.client.transport.CloseIdleConnections()
	}
}

// run fetches until ctx ends.
func (s *KeySource) run(ctx context.Context, log *slog.Logger) {
	failures := 0
	for {
		err := s.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		var next time.Duration
		switch {
		case err != nil:
			next = s.within(min(keysRetry<<min(failures, 10), keysRetryMost))
			if failures++; failures == 1 {
				log.Warn("keys cannot be fetched: those known stay in force", "error", err)
			}
		case failures > 0:
			log.Info("keys are fetched again")
			failures = 0
			fallthrough
		default:
			next = s.fresh()
		}
		if s.settle(time.Now().Add(next)) {
			log.Warn("keys are in force no longer: their place has been away for too long")
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-s.wake:
			t.Stop()
		}
	}
}

// within gives wait, or less if the keys are in force for less while the place is away.
func (s *KeySource) within(wait time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := time.Until(s.away.Add(s.stale)); s.stale > 0 && left > 0 {
		return min(wait, left)
	}
	return wait
}

// settle lets those go on who wait for the fetch that has ended. dropped says that it has put keys out of force: their place has been away for
// too long, since the first fetch that failed.
func (s *KeySource) settle(next time.Time) (dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Next = next
	if s.stale > 0 && s.text != nil && !s.away.IsZero() && time.Since(s.away) >= s.stale {
		s.current.Store(&jwt.KeySet{})
		s.text, s.status.Keys, s.status.IDs = nil, 0, nil
		dropped = true
	}
	if s.pending != nil {
		close(s.pending)
		s.pending = nil
	}
	return dropped
}

// fresh is how long the keys are used before they are fetched anew: somewhat less than the place says, so that they never expire.
func (s *KeySource) fresh() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.status.Next)
}

// fetch gets the keys and puts them in force if they are others.
func (s *KeySource) fetch(ctx context.Context) error {
	text, life, err := s.get(ctx)
	var set *jwt.KeySet
	s.mu.Lock()
	same := err == nil && s.text != nil && bytes.Equal(text, s.text)
	s.mu.Unlock()
	if err == nil && !same {
		set, err = jwt.ParseSet(text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.status.Failures++
		s.status.Problem = err.Error()
		if s.away.IsZero() {
			s.away = time.Now()
		}
		return fmt.Errorf("cannot fetch keys from %q: %w", s.Place, err)
	}
	if !same {
		s.current.Store(set)
		s.text = text
		s.status.Keys, s.status.IDs = set.Len(), set.IDs()
	}
	s.status.Successes++
	s.away = time.Time{}
	s.status.Problem, s.status.Fetched, s.status.Next = "", time.Now(), time.Now().Add(life)
	return nil
}

// get reads the text of the keys, and how long they may be used.
func (s *KeySource) get(ctx context.Context) (text []byte, life time.Duration, err error) {
	if path, file := strings.CutPrefix(s.Place, "file:"); file {
		at, err := os.Stat(path)
		if err != nil {
			return nil, 0, err
		}
		if !at.Mode().IsRegular() || at.Size() > keysBytes {
			return nil, 0, errors.New("this is no file of at most 1 MiB")
		}
		text, err = os.ReadFile(path)
		return text, keysFile, err
	}
	place := s.Place
	if name, discovered := strings.CutPrefix(place, discoverPrefix); discovered {
		if place, err = s.discover(ctx, name); err != nil {
			return nil, 0, err
		}
	}
	return s.ask(ctx, place)
}

// discoverPrefix is before an issuer whose keys are where it says that they are (OpenID Connect Discovery 1.0, 4).
const discoverPrefix = "discover:"

// discover asks an issuer where its keys are. It must speak of itself, and name a place where nobody on the way can replace them.
func (s *KeySource) discover(ctx context.Context, issuer string) (place string, err error) {
	text, _, err := s.ask(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &metadata); err != nil {
		return "", fmt.Errorf("cannot read the metadata: %w", err)
	}
	if metadata.Issuer != issuer {
		return "", fmt.Errorf("the metadata is that of %q", metadata.Issuer[:min(len(metadata.Issuer), 256)])
	}
	return metadata.JWKS, config.CheckKeysURL(metadata.JWKS)
}

// ask gets what is at a URL, and how long it may be used.
func (s *KeySource) ask(ctx context.Context, from string) (text []byte, life time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.client.timeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, 0, err
	}
	q.Header.Set("User-Agent", "sluice")
	q.Header.Set("Accept", "application/jwk-set+json, application/json")
	a, text, whole, err := s.client.do(ctx, q, nil)
	switch {
	case err != nil:
		return nil, 0, err
	case a.StatusCode != http.StatusOK:
		return nil, 0, fmt.Errorf("status %d", a.StatusCode)
	case !whole:
		return nil, 0, errors.New("the answer breaks off, or is longer than 1 MiB")
	}
	return text, lifetime(a.Header.Get("Cache-Control"), a.Header.Get("Age")), nil
}

// lifetime is four fifths of what Cache-Control grants (RFC 9111, 5.2.2.1), within bounds of ours.
func lifetime(control, age string) time.Duration {
	life := keysDefault
	for directive := range strings.SplitSeq(control, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				life = time.Duration(seconds) * time.Second
				if old, err := strconv.ParseUint(age, 10, 31); err == nil {
					life -= time.Duration(old) * time.Second
				}
			}
		case "no-store", "no-cache":
			return keysFloor
		}
	}
	return min(max(life*4/5, keysFloor), keysCeiling)
}

// Current gives the keys as they are now.
func (s *KeySource) Current() *jwt.KeySet { return s.current.Load() }

// Refresh fetches because a key is not among have. However many ask, with whatever names of keys, there is one fetch in ten seconds;
// who asks while one is under way waits for it, but not for long.
func (s *KeySource) Refresh(have *jwt.KeySet, _ string) *jwt.KeySet {
	if now := s.Current(); now != have {
		return now
	}
	wait := s.want(time.Now())
	if wait == nil {
		return have
	}
	t := time.NewTimer(unknownWait)
	defer t.Stop()
	select {
	case <-wait:
	case <-t.C:
	}
	s.mu.Lock()
	s.waiting--
	s.mu.Unlock()
	return s.Current()
}

// want gives what to wait for, nil where waiting is of no use.
func (s *KeySource) want(now time.Time) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting >= unknownWaiters {
		return nil
	}
	if s.pending == nil {
		if now.Sub(s.asked) < unknownEvery {
			return nil
		}
		s.asked = now
		s.pending = make(chan struct{})
		select {
		case s.wake <- struct{}{}:
		default: // it is awake
		}
	}
	s.waiting++
	return s.pending
}

// Status tells of the source.
func (s *KeySource) Status() KeyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// part is a source, and whose tokens its keys are for; issuer "": anybody's.
type part struct {
	issuer string
	source *KeySource
}

// joined is keys of the configuration together with those of sources.
type joined struct {
	fixed *jwt.KeySet
	parts []part
	last  *atomic.Pointer[union]
}

// union is what was joined last, and of what.
type union struct {
	of  []*jwt.KeySet // by part
	all *jwt.KeySet
}

func newJoined(fixed *jwt.KeySet, parts []part) joined {
	return joined{fixed, parts, &atomic.Pointer[union]{}}
}

// Current gives the union of all, the same as long as the sources' keys are.
func (j joined) Current() *jwt.KeySet {
	u := j.last.Load()
	for i := range j.parts {
		if u == nil || u.of[i] != j.parts[i].source.Current() {
			return j.join()
		}
	}
	return u.all
}

// Refresh asks the sources of the issuer.
func (j joined) Refresh(have *jwt.KeySet, issuer string) *jwt.KeySet {
	if now := j.Current(); now != have {
		return now
	}
	for _, p := range j.parts {
		if p.issuer == "" || p.issuer == issuer {
			p.source.Refresh(p.source.Current(), issuer)
		}
	}
	return j.Current()
}

func (j joined) join() *jwt.KeySet {
	u := &union{of: make([]*jwt.KeySet, len(j.parts))}
	sets := []*jwt.KeySet{j.fixed}
	for i, p := range j.parts {
		u.of[i] = p.source.Current()
		sets = append(sets, u.of[i].For(p.issuer))
	}
	u.all = jwt.Join(sets...)
	j.last.Store(u)
	return u.all
}

// KeySources are those of c, sorted by their places.
func (c *Compiled) KeySources() (all []*KeySource) {
	for _, place := range slices.Sorted(maps.Keys(c.keys)) {
		all = append(all, c.keys[place])
	}
	return all
}
