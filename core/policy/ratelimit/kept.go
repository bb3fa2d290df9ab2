package ratelimit

import "errors"

// Kept is what one rate of a level has counted, for the process that replaces this one.
type Kept struct {
	Level string `json:"level"`
	Rate  string `json:"rate"`  // "": the level's own
	State []byte `json:"state"` // of limits.Limit.Append
}

// Export gives what is used of all rates, and takes no more than so many bytes: rates that have no room are left out. It may be called from
// anywhere, while requests go on.
func (p *Policy) Export(most int, now int64) (all []Kept, left int) {
	for i := range p.buckets {
		for j := range p.buckets[i] {
			state := p.buckets[i][j].limit.Append(nil, now)
			if most -= len(state); most < 0 {
				return all, 0
			}
			all = append(all, Kept{Level: p.spec.Levels[i].Name, Rate: p.rates[i].all[j].Name, State: state})
		}
	}
	return all, most
}

var errUnknown = errors.New("there is no rate of that name any more")

// Import adds what another process has counted of a rate, and gives the number of keys. It is called after Start, from anywhere.
func (p *Policy) Import(k Kept, now int64) (keys int, err error) {
	i := p.find(k.Level)
	j := p.rate(i, k.Rate)
	if j < 0 {
		return 0, errUnknown
	}
	return p.buckets[i][j].limit.Import(k.State, now)
}
