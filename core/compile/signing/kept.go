package signing

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kept are keys for another process. It is as secret as they are, and goes over a private socket only.
type Kept struct {
	Lead int64     `json:"lead"` // seconds that a key was published before it signed
	Keys []KeptKey `json:"keys"`
}

// KeptKey is one of them. Times are seconds of Unix time.
type KeptKey struct {
	Algorithm Algorithm `json:"algorithm"`
	Private   []byte    `json:"private"` // PKCS #8
	Epoch     int64     `json:"epoch"`
	From      int64     `json:"from"`
	Life      int64     `json:"life"`
}

var errKept = errors.New("cannot take over signing keys: these cannot be")

// Export gives the keys for the process that takes over.
func (k *Keys) Export(now time.Time) (Kept, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := Kept{Lead: max(k.spec.lead(), k.early-now.Unix())}
	for _, e := range k.all {
		private, err := x509.MarshalPKCS8PrivateKey(e.private)
		if err != nil {
			return Kept{}, fmt.Errorf("cannot hand over signing keys: %w", err)
		}
		kept.Keys = append(kept.Keys, KeptKey{Algorithm: e.alg, Private: private, Epoch: e.epoch, From: e.from, Life: e.life})
	}
	return kept, nil
}

// Import takes over what Export of another process gave, in the place of the own keys, which nobody may have used. On an error they stay.
func (k *Keys) Import(kept Kept, now time.Time) error {
	at := now.Unix()
	most := at + 2*int64(MaxRotation/time.Second)
	if n := len(kept.Keys); n == 0 || n > maxKeys || kept.Lead < 0 || kept.Lead > maxLead {
		return errKept
	}
	var old []entry
	for _, one := range kept.Keys {
		private, err := x509.ParsePKCS8PrivateKey(one.Private)
		signer, ok := private.(crypto.Signer)
		if err != nil || !ok || one.Epoch < random || one.From < 0 || one.From > most || one.Life < 1 || one.Life > int64(MaxRotation/time.Second) {
			return errKept // the cause could tell of the key
		}
		known, err := describe(one.Algorithm, one.Epoch, signer)
		if err != nil {
			return errKept
		}
		old = append(old, entry{key: known, from: one.From, life: one.Life})
	}
	if !slices.IsSortedFunc(old, func(a, b entry) int { return int(min(1, max(-1, a.from-b.from))) }) {
		return errKept
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range old {
		old[i].life = max(old[i].life, k.spec.life())
	}
	own, early := k.all, k.early
	k.early = at + kept.Lead
	k.settle(old, at)
	if _, err := k.rotate(at); err != nil {
		k.all, k.early = own, early
		return err
	}
	return nil
}
