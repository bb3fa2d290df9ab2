package ratelimit

import (
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/limits"
)

// What clients are told: RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers-10 has them, Retry-After (RFC 9110,
// 10.2.3) with a refusal, and, where it is asked for, the three X-RateLimit fields that came before the draft, with Reset in seconds
// from now. A client may be told more than one limit: fields of several policies become lines of one list.

// texts are what of the fields is always the same.
type texts struct {
	policy string     // RateLimit-Policy
	titles [][]string // by level and window: the item of RateLimit up to its number
}

// newTexts writes what is known beforehand. A window of less than a second has no w: it is whole seconds there.
func newTexts(levels []Level) (t texts) {
	for i := range levels {
		var titles []string
		for j, w := range levels[i].Windows {
			title := quoted(levels[i].Titles[j])
			titles = append(titles, title+";r=")
			if t.policy != "" {
				t.policy += ", "
			}
			t.policy += title + ";q=" + strconv.FormatUint(uint64(w.Limit), 10)
			if w.Period >= time.Second {
				t.policy += ";w=" + strconv.FormatInt(seconds(w.Period), 10)
			}
		}
		t.titles = append(t.titles, titles)
	}
	return t
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

// tell writes what d says into the head of a response.
func (p *Policy) tell(m *core.Message, d *limits.Decision) {
	if !d.Allowed && d.RetryAfter > 0 && d.RetryAfter != limits.Never {
		m.Remove(core.FieldRetryAfter)
		number(m, core.FieldRetryAfter.String(), core.FieldRetryAfter, seconds(d.RetryAfter))
	}
	if p.spec.HideHeaders || d.Limit == 0 {
		return
	}
	line := m.Begin("RateLimit-Policy")
	line.String(p.texts.policy)
	line.End(core.FieldOther)
	line = m.Begin("RateLimit")
	line.String(p.texts.titles[d.Level][d.Window])
	b := strconv.AppendUint(line.Buffer(), uint64(d.Remaining), 10)
	line.SetBuffer(strconv.AppendInt(append(b, ";t="...), seconds(d.Reset), 10))
	line.End(core.FieldOther)
	if !p.spec.LegacyHeaders {
		return
	}
	for _, f := range [...]struct {
		name  string
		value int64
	}{{"X-RateLimit-Limit", int64(d.Limit)}, {"X-RateLimit-Remaining", int64(d.Remaining)}, {"X-RateLimit-Reset", seconds(d.Reset)}} {
		m.RemoveName(f.name) // the last to write is the policy that the request met first
		number(m, f.name, core.FieldOther, f.value)
	}
}

func number(m *core.Message, name string, id core.FieldID, v int64) {
	line := m.Begin(name)
	line.SetBuffer(strconv.AppendInt(line.Buffer(), v, 10))
	line.End(id)
}
