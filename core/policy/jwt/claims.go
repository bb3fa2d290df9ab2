package jwt

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// judge checks the claims of a token whose signature is right, and gives what it is good for.
func (p *Policy) judge(t *token, d *core.Directory, now time.Time) (*grant, *core.Error) {
	exp, iat, err := p.times(t.claims, now)
	if err != nil {
		return nil, err
	}
	g := &grant{}
	if g.Grant, err = p.spec.Judge(t.claims, d); err != nil {
		return nil, err
	}
	if most := p.spec.MaximumLifetime; most > 0 {
		if exp > float64(now.Add(most+p.spec.Leeway).Unix()) || iat > 0 && exp-iat > most.Seconds() {
			return nil, errLifetime
		}
	}
	g.until = core.Until(now.Add(p.spec.CacheFor).UnixNano(), exp, p.spec.Leeway)
	return g, nil
}

// times checks exp, nbf and iat (RFC 7519, 4.1.4 to 4.1.6). They are numbers, nothing that could be read as one.
func (p *Policy) times(claims core.Claims, now time.Time) (exp, iat float64, failed *core.Error) {
	exp, ends, ok := claims.Time("exp")
	nbf, _, alsoOK := claims.Time("nbf")
	iat, _, andOK := claims.Time("iat")
	at, leeway := float64(now.UnixNano())/float64(time.Second), p.spec.Leeway.Seconds()
	switch {
	case !ok || !alsoOK || !andOK:
		failed = core.ErrTokenMalformed
	case !ends:
		failed = errEndless
	case at >= exp+leeway:
		failed = core.ErrTokenExpired
	case at < nbf-leeway || at < iat-leeway:
		failed = core.ErrTokenEarly
	default:
		return exp, iat, nil
	}
	return 0, 0, failed
}
