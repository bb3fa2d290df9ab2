package acme

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sys/unix"
)

// turn is when a name is to be tried.
type turn struct {
	e  *entry
	at time.Time
}

// turns is a heap, the next turn first.
type turns []turn

func (t turns) Len() int           { return len(t) }
func (t turns) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t turns) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *turns) Push(x any)        { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// drive gets certificates for names that have none: from the storage, or else from the authority, again and again. Of
// certificates that are there certmagic takes care; drive looks what it made of them.
func (m *Issuer) drive(r *running) {
	var waiting turns
	pending := map[*entry]bool{} // waiting or under way
	enlist := func(e *entry, at time.Time) {
		pending[e] = true
		heap.Push(&waiting, turn{e, at})
	}
	for _, e := range m.names {
		enlist(e, e.nextTurn()) // what failed under a predecessor keeps its pause
	}
	for _, e := range m.onDemand() {
		enlist(e, time.Now()) // inherited: certmagic must know of it to renew it
	}
	underWay, done := 0, make(chan *entry)
	sweep := time.NewTicker(m.timing.sweepEvery)
	defer sweep.Stop()
	for {
		var due <-chan time.Time
		for len(waiting) > 0 && underWay < maxAttempts {
			if wait := time.Until(waiting[0].at); wait > 0 {
				due = time.After(wait)
				break
			}
			e := heap.Pop(&waiting).(turn).e
			underWay++
			r.spawn(func() {
				m.attempt(r, e)
				select {
				case done <- e:
				case <-r.ctx.Done():
				}
			})
		}
		select {
		case <-r.ctx.Done():
			return
		case <-due:
		case e := <-done:
			underWay--
			delete(pending, e)
			switch have := m.refresh(r, e); {
			case have:
			case m.names[e.name] != nil:
				enlist(e, e.nextTurn())
			default:
				m.forget(r, e.name) // the next client that asks begins anew
			}
		case <-sweep.C:
			for _, e := range m.names {
				// Lost from memory, as after a revocation, it is certmagic's concern no more.
				if !m.refresh(r, e) && !pending[e] {
					enlist(e, time.Now())
				}
			}
			for _, e := range m.onDemand() {
				m.refresh(r, e)
			}
		}
	}
}

func (e *entry) nextTurn() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.next
}

// attempt tries once to have a certificate in memory, and notes what came of it.
func (m *Issuer) attempt(r *running, e *entry) {
	ctx, cancel := context.WithTimeout(context.WithValue(r.ctx, attemptKey{}, true), m.timing.attempt)
	defer cancel()
	e.begin()
	was := e.cert.Load()
	err := m.advised(m.obtain(ctx, r, e.name))
	if m.entry(e.name) == nil { // forgotten meanwhile: nobody else would take it out of memory
		r.unload(e.name)
		return
	}
	have := m.refresh(r, e)
	if r.ctx.Err() == nil && (err != nil || !have) {
		m.options.Counters.Failures.Add(1)
	}
	switch {
	case r.ctx.Err() != nil:
	case err == nil && have:
		e.succeed()
	case have && was != nil && e.cert.Load() != was: // renewed after all, by renewUnlinked
	case have: // it is due for renewal, which certmagic tries again
		e.fail(err, m.timing.renewEvery)
	case err == nil:
		e.fail(errors.New("the certificate was stored but is not in memory"), e.pause(m.timing))
	default:
		pause := e.pause(m.timing)
		m.options.Log.Warn("cannot get certificate", "name", e.name, "error", err, "next_attempt_in", pause.Round(time.Second).String())
		e.fail(err, pause)
	}
}

// advised is the error of an attempt with what to do about a storage that cannot be written to, which certmagic tells as text only.
func (m *Issuer) advised(err error) error {
	if err == nil {
		return nil
	}
	failed := os.MkdirAll(m.storage.Path, 0o700)
	if failed == nil {
		failed = unix.Access(m.storage.Path, unix.W_OK)
	}
	if failed == nil {
		return err
	}
	return fmt.Errorf("%w: the storage must be a folder that the gateway may write to, such as that of StateDirectory=: %w", err, failed)
}

// obtain loads the certificate from the storage, renews it if that is due, or gets one where there is none. What is stored
// and is no certificate with its key, as a crash between two files leaves it, is replaced.
func (m *Issuer) obtain(ctx context.Context, r *running, name string) error {
	err := r.config.ManageSync(ctx, []string{name})
	if err == nil || ctx.Err() != nil {
		return err
	}
	var trouble *fs.PathError
	if _, broken := r.config.CacheManagedCertificate(ctx, name); broken == nil || errors.Is(broken, fs.ErrNotExist) || errors.As(broken, &trouble) {
		return err
	}
	m.options.Log.Warn("what is stored is no certificate, getting another", "name", name, "error", err)
	if err := r.config.RenewCertSync(ctx, name, true); err != nil {
		return fmt.Errorf("cannot replace what is stored: %w", err)
	}
	return r.config.ManageSync(ctx, []string{name})
}

// refresh publishes what certmagic has in memory for the name. It says whether there is something.
func (m *Issuer) refresh(r *running, e *entry) bool {
	have := slices.DeleteFunc(r.cache.AllMatchingCertificates(e.name), func(c certmagic.Certificate) bool { return c.Leaf == nil })
	if len(have) == 0 {
		return false
	}
	newest := slices.MaxFunc(have, func(a, b certmagic.Certificate) int { return a.Leaf.NotBefore.Compare(b.Leaf.NotBefore) })
	cert := newest.Certificate
	e.publish(&cert)
	return true
}
