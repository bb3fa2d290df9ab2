package ratelimit

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
)

// What clients are told: RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers-10 has them, Retry-After (RFC 9110,
// 10.2.3) with a refusal, and, where it is asked for, the three X-RateLimit fields that came before the draft, with Reset in seconds
// from now. A client may be told more than one limit: fields of several policies become lines of one list.

// texts are what of the fields is always the same.
type texts struct {
	whole  string       // RateLimit-Policy, where all have the same rates
	policy [][]string   // its items, by level and rate
	titles [][][]string // by level, rate and window: the item of RateLimit up to its number
}

// newTexts writes what is known beforehand. A window of less than a second has no w: it is whole seconds there.
func newTexts(levels []rates) (t texts) {
	for i := range levels {
		var policies []string
		var all [][]string
		for _, r := range levels[i].all {
			policy := ""
			var titles []string
			for j, w := range r.Windows {
				title := quoted(r.Titles[j])
				titles = append(titles, title+";r=")
				if policy != "" {
					policy += ", "
				}
				policy += title + ";q=" + strconv.FormatUint(uint64(w.Limit), 10)
				if w.Period >= time.Second {
					policy += ";w=" + strconv.FormatInt(seconds(w.Period), 10)
				}
			}
			policies, all = append(policies, policy), append(all, titles)
		}
		t.policy, t.titles = append(t.policy, policies), append(t.titles, all)
	}
	if !slices.ContainsFunc(t.policy, func(policies []string) bool { return len(policies) > 1 }) {
		t.whole = t.join(new(note))
	}
	return t
}

// join is RateLimit-Policy for the rates of a request.
func (t *texts) join(n *note) string {
	var b strings.Builder
	for i, policies := range t.policy {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(policies[n.chosen[i]])
	}
	return b.String()
}

// quoted writes a String of RFC 9651, 3.3.3, which is of printable ASCII.
func quoted(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '_')
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// seconds rounds up: who comes back then is not early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// tell writes what was decided into the head of a response. Of what the cluster has left a node that leases knows nothing: then only the
// policy is told, and when it is worth to come back.
func (p *Policy) tell(m *core.Message, n *note) {
	d := &n.Decision
	if !d.Allowed && d.RetryAfter > 0 && d.RetryAfter != limits.Never {
		m.Remove(core.FieldRetryAfter)
		number(m, core.FieldRetryAfter.String(), core.FieldRetryAfter, seconds(d.RetryAfter))
	}
	if !p.tells || d.Limit == 0 {
		return
	}
	line := m.Begin("RateLimit-Policy")
	if line.String(p.texts.whole); p.texts.whole == "" {
		for i, policies := range p.texts.policy {
			if i > 0 {
				line.String(", ")
			}
			line.String(policies[n.chosen[i]])
		}
	}
	line.End(core.FieldOther)
	rate := n.chosen[d.Level]
	if p.spec.Mode != Lease {
		line = m.Begin("RateLimit")
		line.String(p.texts.titles[d.Level][rate][d.Window])
		b := strconv.AppendUint(line.Buffer(), uint64(d.Remaining), 10)
		line.SetBuffer(strconv.AppendInt(append(b, ";t="...), seconds(d.Reset), 10))
		line.End(core.FieldOther)
	}
	if !p.spec.LegacyHeaders {
		return
	}
	for i, f := range [...]struct {
		name  string
		value int64
	}{{"X-RateLimit-Limit", int64(p.rates[d.Level].all[rate].Windows[d.Window].Limit)}, {"X-RateLimit-Remaining", int64(d.Remaining)},
		{"X-RateLimit-Reset", seconds(d.Reset)}} {
		m.RemoveName(f.name) // the last to write is the policy that the request met first
		if i == 0 || p.spec.Mode != Lease {
			number(m, f.name, core.FieldOther, f.value)
		}
	}
}

func number(m *core.Message, name string, id core.FieldID, v int64) {
	line := m.Begin(name)
	line.SetBuffer(strconv.AppendInt(line.Buffer(), v, 10))
	line.End(id)
}
