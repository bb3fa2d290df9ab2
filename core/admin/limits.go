package admin

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

// LimitStatus is one policy of limits.
type LimitStatus struct {
	Policy  string        `json:"policy"`
	Kind    string        `json:"kind"` // rate_limit or concurrency
	Levels  []LevelStatus `json:"levels"`
	Refused []RefusedKey  `json:"refused"` // those that were refused most, the most refused first
}

// LevelStatus is one level of a policy. It counts since the start.
type LevelStatus struct {
	Level     string `json:"level"` // what its key is made of
	Limit     string `json:"limit"`
	Keys      uint64 `json:"keys"`  // slots that were used
	Slots     int    `json:"slots"` // of its table
	Bytes     int    `json:"bytes"`
	Evicted   uint64 `json:"evicted"` // keys forgotten although something of theirs was taken
	Allowed   uint64 `json:"allowed"`
	Refused   uint64 `json:"refused"`
	Passed    uint64 `json:"passed"` // over the limit, but not refused: dry_run or share
	Misses    uint64 `json:"lease_misses"`
	Untracked uint64 `json:"untracked"` // admitted without being counted
	Mode      string `json:"mode"`      // local, lease or strict
	// Rates are those of tiers and consumers, such as "tier paid: 1000/min"; they count in buckets of their own.
	Rates   []string      `json:"rates,omitempty"`
	Cluster *SharedStatus `json:"cluster,omitempty"` // of mode lease
}

// SharedStatus is a node's part of a limit of the cluster. It counts since the limit was made.
type SharedStatus struct {
	Away     bool   `json:"away"`     // the cluster is
	Asks     uint64 `json:"asks"`     // for tokens
	Granted  uint64 `json:"granted"`  // tokens
	Failures uint64 `json:"failures"` // asks without an answer
	Alone    uint64 `json:"alone"`    // requests decided on while it was away
}

// ClusterStatus is the way to what nodes share. It counts since it was made.
type ClusterStatus struct {
	Away     bool      `json:"away"`              // nobody waits for any of it
	Shards   int       `json:"shards"`            // that it consists of
	Missing  int       `json:"missing"`           // of these: those for which nobody waits
	Since    time.Time `json:"since"`             // when one came to be away, or back
	Problem  string    `json:"problem,omitempty"` // the last one
	Commands uint64    `json:"commands"`
	Batches  uint64    `json:"batches"`
	Errors   uint64    `json:"errors"`
	Timeouts uint64    `json:"timeouts"` // requests that waited in vain
	Alone    uint64    `json:"alone"`    // requests that did not wait, since it was away
	Dropped  uint64    `json:"dropped"`  // questions for which there was no room
}

// RefusedKey is a key that was refused often.
type RefusedKey struct {
	Key   string `json:"key"` // the beginning, of what may be a credential
	Count uint64 `json:"count"`
	Error uint64 `json:"error"` // by which Count may be too high
}

// KeyStatus is one key's bucket of one level.
type KeyStatus struct {
	Level     string        `json:"level"`
	Rate      string        `json:"rate,omitempty"` // of a tier or a consumer; "": of whoever has no other
	Limit     string        `json:"limit"`
	Remaining uint32        `json:"remaining"`
	Reset     time.Duration `json:"reset_ns"` // until all of it is there again
}

// limit answers for one key, and forgets it.
func (s *Server) limit(forget bool) func(*fasthttp.RequestCtx) {
	return func(c *fasthttp.RequestCtx) {
		var keys []string
		for _, k := range c.QueryArgs().PeekMulti("key") {
			keys = append(keys, string(k))
		}
		policy := string(c.QueryArgs().Peek("policy"))
		if forget {
			if err := s.source.ResetLimit(policy, keys); err != nil {
				fail(c, fasthttp.StatusBadRequest, err.Error())
				return
			}
			s.log.Info("limit reset", "policy", policy)
			reply(c, fasthttp.StatusOK, state{"reset"})
			return
		}
		all, err := s.source.Limit(policy, keys)
		if err != nil {
			fail(c, fasthttp.StatusBadRequest, err.Error())
			return
		}
		reply(c, fasthttp.StatusOK, list(all))
	}
}

// Limits gives the policies of limits in force.
func (c *Client) Limits() (all []LimitStatus, err error) {
	return all, c.ask("GET", "/limits", nil, &all)
}

// Limit gives the buckets of one key, by the values that it is made of.
func (c *Client) Limit(policy string, key []string) (all []KeyStatus, err error) {
	return all, c.ask("GET", limitPath(policy, key), nil, &all)
}

// ResetLimit makes a key one of which nothing is taken.
func (c *Client) ResetLimit(policy string, key []string) error {
	return c.ask("DELETE", limitPath(policy, key), nil, nil)
}

func limitPath(policy string, key []string) string {
	return "/limit?" + url.Values{"policy": {policy}, "key": key}.Encode()
}

// limit is `sluice ctl limit POLICY show|reset [VALUE]...`.
func (k *ctl) limit(words []string) error {
	if len(words) < 2 {
		return errUsage("write limit POLICY show|reset [VALUE]...")
	}
	policy, key := words[0], words[2:]
	switch words[1] {
	case "show":
		all, err := k.client.Limit(policy, key)
		return k.show(all, err, func(w io.Writer) {
			_, _ = fmt.Fprintln(w, "LEVEL\tRATE\tLIMIT\tREMAINING\tRESET")
			for _, s := range all {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", cell(s.Level), cell(s.Rate), cell(s.Limit), s.Remaining, s.Reset.Round(time.Millisecond))
			}
		})
	case "reset":
		return k.say("reset", k.client.ResetLimit(policy, key))
	}
	return errUsage(fmt.Sprintf("limit POLICY %q: show or reset", words[1]))
}

func printLimits(w io.Writer, all []LimitStatus) {
	_, _ = fmt.Fprintln(w, "POLICY\tLEVEL\tLIMIT\tALLOWED\tREFUSED\tPASSED\tKEYS\tSLOTS\tEVICTED\tLEASE MISSES")
	for _, p := range all {
		for _, l := range p.Levels {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", cell(p.Policy), cell(l.Level), cell(l.Limit), l.Allowed, l.Refused,
				l.Passed, l.Keys, l.Slots, l.Evicted, l.Misses)
		}
	}
	_, _ = fmt.Fprintln(w, "\nPOLICY\tMOST REFUSED\tTIMES")
	for _, p := range all {
		for _, r := range p.Refused {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\n", cell(p.Policy), cell(r.Key), r.Count)
		}
	}
}
