package jwt

import (
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Verify gives the claims of a token that no request bears as its credential, such as an ID token, and the algorithm that it is signed with:
// its signature is right, exp is there, and its time has come. Its issuer, audience and whatever else it says are the caller's to judge. It
// may wait for keys, and so is not called on a loop.
func (p *Policy) Verify(text string, now time.Time) (core.Claims, string, *core.Error) {
	t, ok := p.tokens.read(text)
	if !ok {
		return nil, "", core.ErrTokenMalformed
	}
	if method(t.alg) == nil || len(p.spec.Algorithms) > 0 && !slices.Contains(p.spec.Algorithms, t.alg) {
		return nil, "", errAlgorithm
	}
	issuer, _ := t.claims["iss"].(string)
	keys := p.keys.Current()
	if !keys.has(issuer, t.kid) {
		keys = p.keys.Refresh(keys, issuer)
	}
	if keys.Len() == 0 {
		return nil, "", errNoKeys
	}
	if err := p.signed(&t, issuer, keys); err != nil {
		return nil, "", err
	}
	if _, _, err := p.times(t.claims, now); err != nil {
		return nil, "", err
	}
	return t.claims, t.alg, nil
}
