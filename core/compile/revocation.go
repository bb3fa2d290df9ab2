package compile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Revocation is one token, or all of a subject up to a time, that was withdrawn at run time.
type Revocation struct {
	Kind  string    `json:"kind"` // jti or sub
	Value string    `json:"value"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until"` // forgotten then: its tokens must have expired
}

const (
	maxRevocations     = 100_000
	maxRevocationBytes = 1024
	maxRevocationLife  = 366 * 24 * time.Hour
)

// Revoker changes what is withdrawn. Any goroutine but a loop's may use it. It outlives configurations.
type Revoker struct {
	mu    sync.Mutex
	inUse core.Revocations
}

var errRevocations = fmt.Errorf("more than %d revocations", maxRevocations)

// Revoke withdraws tokens by their jti, or those of subjects by their sub, for so long. All of values, or on an error none.
func (r *Revoker) Revoke(kind string, values []string, life time.Duration, now time.Time) error {
	if life <= 0 || life > maxRevocationLife {
		return fmt.Errorf("a revocation lasts up to %v", maxRevocationLife)
	}
	all := make([]Revocation, 0, len(values))
	for _, v := range values {
		all = append(all, Revocation{kind, v, now, now.Add(life)})
	}
	return r.Add(all, now)
}

// Add is Revoke for revocations that were made before, such as in another process.
func (r *Revoker) Add(all []Revocation, now time.Time) error {
	return r.change(now, func(to *core.Revoked) error {
		for _, one := range all {
			switch {
			case one.Value == "" || len(one.Value) > maxRevocationBytes:
				return fmt.Errorf("a %s has from 1 to %d bytes", one.Kind, maxRevocationBytes)
			case one.Kind == "jti":
				if one.Until.After(to.IDs[one.Value]) {
					to.IDs[one.Value] = one.Until
				}
			case one.Kind == "sub":
				s := to.Subjects[one.Value]
				to.Subjects[one.Value] = core.RevokedSubject{At: later(s.At, one.At), Until: later(s.Until, one.Until)}
			default:
				return errors.New("tokens are revoked by jti or sub")
			}
		}
		if len(to.IDs)+len(to.Subjects) > maxRevocations {
			return errRevocations
		}
		return nil
	})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Restore takes revocations back. What is not revoked stays so.
func (r *Revoker) Restore(kind string, values []string, now time.Time) error {
	return r.change(now, func(to *core.Revoked) error {
		for _, v := range values {
			switch kind {
			case "jti":
				delete(to.IDs, v)
			case "sub":
				delete(to.Subjects, v)
			default:
				return errors.New("tokens are revoked by jti or sub")
			}
		}
		return nil
	})
}

// change edits a copy, less what is over, and puts it in force.
func (r *Revoker) change(now time.Time, edit func(to *core.Revoked) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := &core.Revoked{IDs: map[string]time.Time{}, Subjects: map[string]core.RevokedSubject{}}
	if from := r.inUse.Current(); from != nil {
		maps.Copy(to.IDs, from.IDs)
		maps.Copy(to.Subjects, from.Subjects)
	}
	maps.DeleteFunc(to.IDs, func(_ string, until time.Time) bool { return !now.Before(until) })
	maps.DeleteFunc(to.Subjects, func(_ string, s core.RevokedSubject) bool { return !now.Before(s.Until) })
	if err := edit(to); err != nil {
		return err
	}
	if len(to.IDs)+len(to.Subjects) == 0 {
		to = nil // requests need not look
	}
	r.inUse.Switch(to)
	return nil
}

// All are those that are not over, the newest last.
func (r *Revoker) All(now time.Time) (all []Revocation) {
	from := r.inUse.Current()
	if from == nil {
		return nil
	}
	for v, until := range from.IDs {
		if now.Before(until) {
			all = append(all, Revocation{Kind: "jti", Value: v, Until: until})
		}
	}
	for v, s := range from.Subjects {
		if now.Before(s.Until) {
			all = append(all, Revocation{"sub", v, s.At, s.Until})
		}
	}
	slices.SortFunc(all, func(a, b Revocation) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value))
	})
	return all
}

// Revoker is the registry's.
func (r *Registry) Revoker() *Revoker { return r.revoker }
