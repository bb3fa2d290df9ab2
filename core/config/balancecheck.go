package config

import (
	"fmt"
	"strings"
)

// checkBalance finds what is said of balancing in vain.
func (l *loader) checkBalance(partial bool) {
	for i := range l.cfg.Upstreams {
		u := &l.cfg.Upstreams[i]
		l.checkWeights(u)
		l.checkZones(u)
		for j := range u.Balance.Keys {
			if k := &u.Balance.Keys[j]; k.From == "param" && !partial && !l.anyHasParameter(u.Name, k.Name) {
				l.problemAt(k.Pos, "", "no route to upstream %q has {%s} in all its paths", u.Name, clip(k.Name))
			}
		}
	}
	for i := range l.cfg.Routes {
		if r := &l.cfg.Routes[i]; r.Passthrough {
			l.checkPassedKeys(r)
		}
	}
}

// checkWeights finds upstreams none of whose endpoints gets anything.
func (l *loader) checkWeights(u *Upstream) {
	for i := range u.Endpoints {
		if u.Endpoints[i].Weight > 0 {
			return
		}
	}
	if len(u.Endpoints) > 0 && len(u.Files) == 0 {
		l.problemAt(u.Endpoints[0].Pos, "", "upstream %q has no endpoint with a weight above 0", u.Name)
	}
}

// checkZones finds a zone of the gateway's without endpoints, and zones of endpoints that nobody asks for.
func (l *loader) checkZones(u *Upstream) {
	own := false
	for i := range u.Endpoints {
		e := &u.Endpoints[i]
		own = own || e.Zone == u.Balance.Zone
		if e.Zone != "" && u.Balance.Zone == "" {
			l.warnAt(e.Pos, "add balance: { zone: NAME }, the gateway's own", "the zones of upstream %q are of no use", u.Name)
			return
		}
	}
	if u.Balance.Zone != "" && !own && len(u.Endpoints) > 0 && len(u.Files) == 0 {
		l.warnAt(u.Pos, "", "no endpoint of upstream %q is in zone %q", u.Name, clip(u.Balance.Zone))
	}
}

// anyHasParameter says whether a route to an upstream has a parameter in each of its matches.
func (l *loader) anyHasParameter(upstream, name string) bool {
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		names := map[string]int{}
		for j := range r.Matches {
			countParameters(r.Matches[j].Path, names)
		}
		for _, t := range r.upstreams() {
			if t.Upstream == upstream && names[name] >= max(1, len(r.Matches)) {
				return true
			}
		}
	}
	return false
}

// checkPassedKeys finds upstreams whose key no passed connection has.
func (l *loader) checkPassedKeys(r *Route) {
	for _, t := range r.To {
		i, ok := l.upstreams[t.Upstream]
		if !ok {
			continue
		}
		keys := l.cfg.Upstreams[i].Balance.Keys
		usable := len(keys) == 0
		for j := range keys {
			usable = usable || keys[j].From == "client_ip"
		}
		if !usable {
			l.problemAt(t.Pos, "add client_ip to the sources of its key", "upstream %q goes by what connections that are passed through do not show", t.Upstream)
		}
	}
}

func (w *dumper) balance(b *Balance) {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch b.Algorithm {
	case "least_request":
		if b.FullScan {
			add("full_scan: true")
		} else {
			add("choices: %d", b.Choices)
		}
		add("bias: %s", formatShare(b.Bias))
	case "peak_ewma":
		add("choices: %d, decay: %s, failure: %s", b.Choices, formatDuration(b.Decay), formatDuration(b.Failure))
	case "ring_hash", "maglev":
		keys := make([]string, len(b.Keys))
		for i := range b.Keys {
			keys[i] = b.Keys[i].text()
		}
		add("key: [%s]", strings.Join(keys, ", "))
	}
	if b.LoadFactor > 0 && b.Hashing() {
		add("load_factor: %s", formatShare(b.LoadFactor))
	}
	if len(list) == 0 {
		w.line("%s: {}", b.Algorithm)
	} else {
		w.line("%s: { %s }", b.Algorithm, strings.Join(list, ", "))
	}
	if !b.Hashing() {
		s := &b.SlowStart
		w.line("slow_start: { window: %s, aggression: %s, minimum: %s%% }", formatDuration(s.Window), formatShare(s.Aggression), formatShare(s.Minimum))
	}
	if b.Zone != "" {
		w.line("zone: { own: %s, minimum_endpoints: %d }", quote(b.Zone), b.ZoneMinimum)
	}
	w.line("overprovisioning: %s", formatShare(b.Overprovisioning))
	w.line("panic: %s%%", formatShare(b.Panic))
}

func (k *BalanceKey) text() string {
	switch c := k.Sticky; {
	case c != nil:
		return fmt.Sprintf("{ cookie: { name: %s, ttl: %s, path: %s, secure: %t, http_only: %t, same_site: %s } }",
			quote(k.Name), formatDuration(c.TTL), quote(c.Path), c.Secure, c.HTTPOnly, quote(c.SameSite))
	case k.From == "param":
		return quote("path:" + k.Name)
	case k.Name == "":
		return k.From
	}
	return quote(k.From + ":" + k.Name)
}
