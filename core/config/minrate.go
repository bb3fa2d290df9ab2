package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// MinRate is how slowly a client may send and take: see core.MinRate.
type MinRate struct {
	Receive, Send int64 // bytes a second; 0: as slowly as it likes
	Grace         time.Duration
}

const (
	maxMinRate   = 1 << 20
	defaultGrace = 5 * time.Second
)

// minRate reads `min_rate`: one rate for both directions, or a map.
func (d *decoder) minRate(key string, n ast.Node, r *MinRate) {
	*r = MinRate{Grace: defaultGrace}
	if n = d.resolve(n); !isMap(n) {
		d.byteRate(key, n, &r.Receive)
		r.Send = r.Receive
		return
	}
	some := false
	ok := d.mapping(key, n, "receive send grace", func(key string, _, v ast.Node) bool {
		some = some || key != "grace"
		switch key {
		case "receive":
			d.byteRate(key, v, &r.Receive)
		case "send":
			d.byteRate(key, v, &r.Send)
		case "grace":
			d.duration(key, v, 100*time.Millisecond, &r.Grace)
		default:
			return false
		}
		return true
	})
	if ok && !some {
		d.problem(n, "such as min_rate: 240B/s", "%q has no rate", key)
	}
}

// rates are the limits of l that are rates, as they are written.
func rates(l *ListenerLimits) (text string) {
	if l.ConnectionRatePerIP.Limit > 0 {
		text = ", connection_rate_per_ip: " + l.ConnectionRatePerIP.String()
	}
	r := &l.MinRate
	var parts []string
	for _, rate := range []struct {
		key   string
		bytes int64
	}{{"receive", r.Receive}, {"send", r.Send}} {
		if rate.bytes > 0 {
			parts = append(parts, rate.key+": "+formatSize(rate.bytes)+"/s")
		}
	}
	if len(parts) > 0 {
		text += fmt.Sprintf(", min_rate: { %s, grace: %s }", strings.Join(parts, ", "), formatDuration(r.Grace))
	}
	return text
}

// byteRate reads bytes a second, such as 240B/s.
func (d *decoder) byteRate(key string, n ast.Node, to *int64) {
	n = d.resolve(n)
	var text string
	if n == nil || !d.text(key, n, &text) {
		return
	}
	size, ok := strings.CutSuffix(text, "/s")
	v, _, sized := parseSize(size)
	switch {
	case !ok || !sized:
		d.problem(n, "such as 240B/s or 1KiB/s", "%q must be bytes a second, not %q", key, clip(text))
	case v < 1 || v > maxMinRate:
		d.problem(n, "", "%q must be from 1B/s to %s/s", key, formatSize(maxMinRate))
	default:
		*to = v
	}
}
