package jwt

import (
	"errors"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
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
	g.until = min(now.Add(p.spec.CacheFor).UnixNano(), time.Unix(int64(exp), 0).Add(p.spec.Leeway).UnixNano())
	return g, nil
}

// times checks exp, nbf and iat. They are numbers, nothing that could be read as one.
func (p *Policy) times(claims core.Claims, now time.Time) (exp, iat float64, failed *core.Error) {
	for name, to := range map[string]*float64{"exp": &exp, "nbf": new(float64), "iat": &iat} {
		var ok bool
		if *to, _, ok = claims.Time(name); !ok {
			return 0, 0, core.ErrTokenMalformed
		}
	}
	err := gojwt.NewValidator(gojwt.WithExpirationRequired(), gojwt.WithIssuedAt(), gojwt.WithLeeway(p.spec.Leeway),
		gojwt.WithTimeFunc(func() time.Time { return now })).Validate(gojwt.MapClaims(claims))
	switch {
	case err == nil:
		return exp, iat, nil
	case errors.Is(err, gojwt.ErrTokenExpired):
		return 0, 0, core.ErrTokenExpired
	case errors.Is(err, gojwt.ErrTokenNotValidYet), errors.Is(err, gojwt.ErrTokenUsedBeforeIssued):
		return 0, 0, core.ErrTokenEarly
	case claims["exp"] == nil:
		return 0, 0, errEndless
	}
	return 0, 0, core.ErrTokenMalformed
}
