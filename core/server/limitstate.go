package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/policy/ratelimit"
	"github.com/sluice-gateway/sluice/core/server/handover"
	"github.com/sluice-gateway/sluice/limits"
)

// limitsPart holds what is used of limits. Its seed is needed before the others are restored.
const limitsPart = "limits"

// maxLimitState bounds what is handed over of limits, in bytes: some eight million keys.
const maxLimitState = 256 << 20

// keptLimits is what clients have used, and the secret that keys are made with.
type keptLimits struct {
	Seed     []byte                      `json:"seed"`
	Policies map[string][]ratelimit.Kept `json:"policies"`
}

// exportLimits gives what is used of each rate_limit. What is in flight is not handed over: it ends where it began.
func (s *Server) exportLimits(c *compile.Compiled) (any, error) {
	k := keptLimits{Seed: s.registry.Seed().AppendTo(nil), Policies: map[string][]ratelimit.Kept{}}
	room := maxLimitState
	for _, l := range c.Limiters {
		if l.Rate == nil {
			continue
		}
		if k.Policies[l.Name], room = l.Rate.Export(room, s.registry.Wall()); room == 0 {
			s.log.Warn("there is more state of limits than can be handed over", "policy", l.Name)
			break
		}
	}
	return k, nil
}

var errSeed = errors.New("its keys are not ours")

// restoreLimits gives each rate_limit of c what was used of the one of its name.
func (s *Server) restoreLimits(c *compile.Compiled, body []byte) error {
	var k keptLimits
	if err := json.Unmarshal(body, &k); err != nil {
		return err
	}
	if seed, err := limits.ParseSeed(k.Seed); err != nil {
		return err
	} else if seed != s.registry.Seed() {
		return errSeed
	}
	for _, l := range c.Limiters {
		if l.Rate != nil {
			l.Keep(k.Policies[l.Name])
		}
	}
	return nil
}

// takeSeed takes the seed of the process before, if it hands one over: keys are made with it from the first configuration on.
func (s *Server) takeSeed(parts []handover.Part) {
	i := slices.IndexFunc(parts, func(p handover.Part) bool { return p.Name == limitsPart && p.Version == limitsVersion })
	if i < 0 {
		return
	}
	var k struct {
		Seed []byte `json:"seed"`
	}
	err := json.Unmarshal(parts[i].Body, &k)
	var seed limits.Seed
	if err == nil {
		seed, err = limits.ParseSeed(k.Seed)
	}
	if err != nil {
		s.log.Warn("state is ignored", "part", limitsPart, "error", fmt.Errorf("cannot take the seed: %w", err))
		return
	}
	s.registry.UseSeed(seed)
}

// limitsVersion is that of the part's form.
const limitsVersion = 1
