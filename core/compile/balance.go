package compile

import (
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/upstream"
	"github.com/sluice-gateway/sluice/lb"
)

// balancing is how b says that endpoints are chosen. The grammar lets nothing through that lb would refuse.
func balancing(b *config.Balance) *upstream.Balancing {
	algorithm, ok := lb.ParseAlgorithm(b.Algorithm)
	if !ok {
		panic("BUG: compile: no algorithm " + b.Algorithm)
	}
	out := &upstream.Balancing{Spec: lb.Spec{
		Algorithm:   algorithm,
		Choices:     b.Choices,
		FullScan:    b.FullScan,
		Bias:        b.Bias,
		Decay:       b.Decay,
		Penalty:     b.Failure,
		LoadFactor:  b.LoadFactor,
		SlowStart:   lb.SlowStart{Window: b.SlowStart.Window, Aggression: b.SlowStart.Aggression, Minimum: b.SlowStart.Minimum / 100},
		Zone:        b.Zone,
		ZoneMinimum: b.ZoneMinimum,
		Overprovide: b.Overprovisioning,
		Panic:       b.Panic / 100,
	}}
	for i := range b.Keys {
		out.Keys = append(out.Keys, keySource(&b.Keys[i]))
	}
	return out
}

func keySource(k *config.BalanceKey) upstream.KeySource {
	from := upstream.FromClient
	switch k.From {
	case "header":
		from = upstream.FromHeader
	case "cookie":
		from = upstream.FromCookie
	case "query":
		from = upstream.FromQuery
	case "path":
		from = upstream.FromPath
	case "param":
		from = upstream.FromParameter
	case "consumer":
		from = upstream.FromConsumer
	case "tenant":
		from = upstream.FromTenant
	case "claim":
		from = upstream.FromClaim
	}
	var sticky *upstream.StickySpec
	if c := k.Sticky; c != nil {
		sticky = &upstream.StickySpec{TTL: c.TTL, Path: c.Path, Secure: c.Secure, HTTPOnly: c.HTTPOnly}
		switch c.SameSite {
		case "strict":
			sticky.SameSite = "Strict"
		case "lax":
			sticky.SameSite = "Lax"
		case "none":
			sticky.SameSite = "None"
		}
	}
	return upstream.NewKeySource(from, k.Name, sticky)
}
