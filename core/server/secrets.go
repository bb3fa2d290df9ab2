package server

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/server/vault"
)

// Load reads a configuration file with all that it refers to, a vault's secrets too, as Run does.
func Load(file string) (*config.Config, config.Problems) {
	var v vaults
	defer v.keep(nil)
	l := v.load(context.Background(), file)
	return l.cfg, l.problems
}

// loadPatience bounds what all questions to the vault take in one load.
const loadPatience = 20 * time.Second

// loaded is a configuration that was read.
type loaded struct {
	cfg      *config.Config // nil: it is refused
	problems config.Problems
	digests
	files secretFiles // that secrets were read from
	spec  *vault.Spec // of the vault that was asked or could be; nil: there is none
	basis *loaded     // of one whose secrets have changed: what was in force then
}

// digests are of what a configuration says, and of what its references stand for. They tell whether either has changed.
type digests struct{ text, secrets [sha256.Size]byte }

// vaults are the clients that loads use, so that each need not log in. Any goroutine may use them.
type vaults struct {
	mu      sync.Mutex
	clients map[vault.Spec]*vault.Client
}

// client gives that for spec.
func (v *vaults) client(spec vault.Spec) (*vault.Client, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.clients[spec]; c != nil {
		return c, nil
	}
	c, err := vault.New(spec)
	if err != nil {
		return nil, err
	}
	if v.clients == nil {
		v.clients = map[vault.Spec]*vault.Client{}
	}
	v.clients[spec] = c
	return c, nil
}

// keep ends all clients but the one for spec; nil: all.
func (v *vaults) keep(spec *vault.Spec) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s, c := range v.clients {
		if spec == nil || s != *spec {
			c.Close()
			delete(v.clients, s)
		}
	}
}

// load reads the file. It takes as long as the disk does, and with a vault loadPatience at most besides.
func (v *vaults) load(ctx context.Context, file string) *loaded {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	l := &loaded{files: secretFiles{}}
	text, secrets := sha256.New(), sha256.New()
	asking := &asking{ctx: ctx, vaults: v, found: map[string]map[string]string{}}
	env := config.System()
	found, read := env.LookupEnv, env.ReadFile
	env.Source = func(name, of string) { note(text, name, of) }
	env.LookupEnv = func(name string) (string, bool) {
		value, ok := found(name)
		note(secrets, name, value)
		return value, ok
	}
	env.ReadSecret = func(path string) ([]byte, error) {
		l.files.note(path)
		b, err := read(path)
		note(secrets, path, string(b))
		return b, err
	}
	env.ReadVault = func(at *config.Vault, mount, path, key string) (string, error) {
		value, err := asking.read(at, mount, path, key)
		note(secrets, key, value)
		return value, err
	}
	l.cfg, l.problems = config.LoadIn(file, env)
	text.Sum(l.text[:0])
	secrets.Sum(l.secrets[:0])
	if l.cfg != nil && l.cfg.Secrets.Vault != nil {
		spec := vaultSpec(l.cfg.Secrets.Vault)
		l.spec = &spec
	}
	return l
}

// note adds a name and a value, so that no two lists of them look the same.
func note(to hash.Hash, name, value string) {
	for _, s := range []string{name, value} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		to.Write(n[:])
		to.Write([]byte(s))
	}
}

// asking is what one load has asked a vault. Each secret is read once, whatever refers to its keys, and a vault that does not answer is not
// asked again.
type asking struct {
	ctx    context.Context
	vaults *vaults
	found  map[string]map[string]string
	down   error
}

var errNoKey = errors.New("the secret has no such key, or its value is no text")

func (a *asking) read(at *config.Vault, mount, path, key string) (string, error) {
	if a.down != nil {
		return "", a.down
	}
	keys, known := a.found[mount+"/"+path]
	if !known {
		c, err := a.vaults.client(vaultSpec(at))
		if err == nil {
			keys, err = c.Read(a.ctx, mount, path)
		}
		switch {
		case errors.Is(err, vault.ErrMissing), errors.Is(err, vault.ErrDenied):
			return "", err
		case err != nil:
			a.down = err
			return "", err
		}
		a.found[mount+"/"+path] = keys
	}
	value, ok := keys[key]
	if !ok {
		return "", errNoKey
	}
	return value, nil
}

func vaultSpec(v *config.Vault) vault.Spec {
	s := vault.Spec{Address: v.Address, Namespace: v.Namespace, CA: v.CA, Timeout: v.Timeout, Token: v.Token.Reveal()}
	if r := v.AppRole; r != nil {
		s.RoleID, s.SecretID, s.Mount = r.RoleID, r.SecretID.Reveal(), r.Mount
	}
	return s
}

// secrets looks whether what the configuration in force refers to has changed, and keeps the vault's token alive, on a goroutine of its own.
type secrets struct {
	vaults  vaults
	inForce atomic.Pointer[loaded]
	changed chan *loaded  // configurations whose secrets are others; Run's goroutine puts them in force
	again   chan struct{} // another is in force; room for one
	cancel  context.CancelFunc
	done    sync.WaitGroup

	looks, changes, failures atomic.Uint64
}

// secretsRetry is how long after a failure the vault is asked again that keeps us logged in.
const secretsRetry = 10 * time.Second

// secretsIdle is how long a look waits for where none is due.
const secretsIdle = time.Hour

// watchSecrets begins to look. What is in force must be known.
func (s *Server) watchSecrets() {
	ctx, cancel := context.WithCancel(context.Background())
	w := &s.secrets
	w.cancel = cancel
	w.done.Go(func() {
		watch := secretsWatch{s: s, secrets: w}
		for {
			wait := watch.turn(ctx)
			if wait == 0 {
				wait = secretsIdle
			}
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-w.again:
				t.Stop()
			case <-t.C:
			}
		}
	})
}

// end stops the looking, and the clients.
func (w *secrets) end() {
	if w.cancel != nil {
		w.cancel()
		w.done.Wait()
	}
	w.vaults.keep(nil)
}

// put notes what is in force now.
func (w *secrets) put(l *loaded) {
	w.inForce.Store(l)
	w.vaults.keep(l.spec)
	select {
	case w.again <- struct{}{}:
	default: // it is to look again already
	}
}

// secretsWatch is what the goroutine has between its turns.
type secretsWatch struct {
	s *Server
	*secrets
	of      *loaded     // that look belongs to
	look    time.Time   // when the next one is due
	files   secretFiles // as they were read last
	moved   secretFiles // as they were seen to be others; nil: they are not, or were read since
	unsure  bool        // what is in force may not be what was read last
	failing bool
	told    [sha256.Size]byte // the text on disk of which it was said that only a reload takes it over
}

// turn does what is due, and gives when there is more to do; 0: not before another configuration is in force.
func (w *secretsWatch) turn(ctx context.Context) time.Duration {
	now, of := time.Now(), w.inForce.Load()
	every := of.cfg.Secrets.Refresh
	if w.of != of {
		w.of, w.look, w.files, w.moved, w.unsure = of, now.Add(every), of.files, nil, false
	}
	var wait time.Duration
	if every > 0 {
		changed, again := w.filesChanged(min(every, secretFilesEvery))
		if changed || (of.spec != nil || w.unsure) && !now.Before(w.look) {
			w.lookAt(ctx, of)
			now = time.Now()
			w.look = now.Add(every)
		}
		if wait = again; of.spec != nil || w.unsure {
			if until := max(w.look.Sub(now), time.Millisecond); wait == 0 || until < wait {
				wait = until
			}
		}
	}
	if of.spec == nil {
		return wait
	}
	c, err := w.vaults.client(*of.spec)
	var next time.Time
	if err == nil {
		next, err = c.Tend(ctx)
	}
	if err != nil {
		next = now.Add(secretsRetry)
	}
	if !next.IsZero() {
		if until := max(time.Until(next), time.Second); wait == 0 || until < wait {
			wait = until
		}
	}
	return wait
}

// lookAt reads everything anew. Of what has changed only secrets are taken over: the rest waits for a reload.
func (w *secretsWatch) lookAt(ctx context.Context, of *loaded) {
	l := w.vaults.load(ctx, w.s.options.ConfigFile)
	w.looks.Add(1)
	if l.cfg != nil {
		w.files = l.files
	}
	w.unsure = l.cfg == nil || l.text != of.text || l.secrets != of.secrets // an upgrade may be under way, or what else is named be away
	switch {
	case ctx.Err() != nil:
	case l.text != of.text:
		if w.told != l.text {
			w.told = l.text
			w.s.log.Warn("the configuration has changed on disk: secrets are not looked at before a reload", "config", w.s.options.ConfigFile)
		}
	case l.cfg == nil:
		w.failures.Add(1)
		if !w.failing {
			w.s.log.Error("secrets cannot be read: those known stay in force", "error", l.problems.String())
		}
		w.failing = true
	case l.secrets != of.secrets:
		l.basis = of
		select {
		case w.changed <- l:
			w.changes.Add(1)
		case <-ctx.Done():
		}
		fallthrough
	default:
		if w.failing {
			w.s.log.Info("secrets can be read again")
		}
		w.failing = false
	}
}

// takeSecrets puts a configuration in force whose secrets have changed, unless another has come between.
func (s *Server) takeSecrets(l *loaded) {
	if s.upgrading != nil || s.secrets.inForce.Load() != l.basis {
		return // they are looked at again
	}
	s.log.Info("secrets have changed")
	_ = s.change(func() error { return s.put(l) })
}

// collect counts.
func (w *secrets) collect(sink *observe.Sink) {
	sink.Counter("sluice_secrets_looks_total", "Times that all secrets were read to see whether one has changed.", float64(w.looks.Load()))
	sink.Counter("sluice_secrets_changes_total", "Of these, those that found another.", float64(w.changes.Load()))
	sink.Counter("sluice_secrets_failures_total", "Of these, those in which one could not be read.", float64(w.failures.Load()))
}
