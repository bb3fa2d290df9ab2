package config

import (
	"fmt"
	"slices"
	"strings"
)

// checkBalance finds what is said of balancing in vain.
func (l *loader) checkBalance(partial bool) {
	routes := map[int][]*Route{}
	if slices.ContainsFunc(l.cfg.Upstreams, func(u Upstream) bool { return len(u.Balance.Keys) > 0 }) {
		for i := range l.cfg.Routes {
			for at := range l.answering(&l.cfg.Routes[i]) {
				routes[at] = append(routes[at], &l.cfg.Routes[i])
			}
		}
	}
	for i := range l.cfg.Upstreams {
		u := &l.cfg.Upstreams[i]
		l.checkWeights(u)
		l.checkZones(u)
		if !partial {
			l.checkKeys(u, routes[i])
		}
	}
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		if r.Passthrough {
			l.checkPassedKeys(r)
		}
		l.checkOwnKeys(r)
	}
}

// checkKeys finds sources of an upstream's key that requests of none of the routes to it have.
func (l *loader) checkKeys(u *Upstream, routes []*Route) {
	for j := range u.Balance.Keys {
		k := &u.Balance.Keys[j]
		switch {
		case k.From == "param":
			if !slices.ContainsFunc(routes, func(r *Route) bool { return r.hasParameter(k.Name) }) {
				l.problemAt(k.Pos, "", "no route to upstream %q has {%s} in all its paths", u.Name, clip(k.Name))
			}
		case k.proved():
			if !slices.ContainsFunc(routes, func(r *Route) bool { return l.found(r).tells(k) }) {
				l.problemAt(k.Pos, "use "+k.finder()+" in a route to it", "%q cannot be the key here: no policy of a route to upstream %q %s", KeyPart{k.From, k.Name}, u.Name, k.finding())
			}
		}
	}
}

// checkOwnKeys finds sources of a route's own keys that none of its policies can find out.
func (l *loader) checkOwnKeys(r *Route) {
	keys := r.SplitBy
	if r.Canary != nil {
		keys = slices.Concat(keys, r.Canary.Keys)
	}
	for i := range keys {
		if k := &keys[i]; k.proved() && !r.Passthrough && !l.found(r).tells(k) { // what is passed through has no such key, which was reported
			l.problemAt(k.Pos, "use "+k.finder()+" in the route", "%q cannot be the key here: no policy of the route %s", KeyPart{k.From, k.Name}, k.finding())
		}
	}
}

// proved says whether the source is what a client has proved to a policy of the route.
func (k *BalanceKey) proved() bool {
	return k.From == "consumer" || k.From == "tenant" || k.From == "claim"
}

// tells says whether policies that have found out so much find out what the source is.
func (f known) tells(k *BalanceKey) bool {
	if k.From == "claim" {
		return f.token
	}
	return f.consumer
}

// finding is what a policy does that finds out what the source is, and finder which does.
func (k *BalanceKey) finding() string {
	if k.From == "claim" {
		return "verifies a token"
	}
	return "finds out who a consumer is"
}

func (k *BalanceKey) finder() string {
	if k.From == "claim" {
		return "jwt"
	}
	return "keyauth, or another policy that finds a consumer,"
}

// found is what the policies of a route find out, all of which run before an endpoint is chosen.
func (l *loader) found(r *Route) (f known) {
	l.policies(r, func(_ *Use, p *Policy) { f.add(p) })
	return f
}

// answering are the upstreams that may answer a route's requests, with those that stand in while a breaker is open.
func (l *loader) answering(r *Route) map[int]bool {
	all := map[int]bool{}
	var add func(name string)
	standIn := func(b *Breaker) {
		if b != nil && b.Fallback.To != nil {
			add(b.Fallback.To.Upstream)
		}
	}
	add = func(name string) {
		if i, ok := l.upstreams[name]; ok && !all[i] {
			all[i] = true
			standIn(l.cfg.Upstreams[i].Breaker)
		}
	}
	for _, t := range r.upstreams() {
		add(t.Upstream)
	}
	standIn(r.Breaker)
	return all
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

// hasParameter says whether each of the route's matches has the parameter.
func (r *Route) hasParameter(name string) bool {
	names := map[string]int{}
	for i := range r.Matches {
		countParameters(r.Matches[i].Path, names)
	}
	return names[name] >= max(1, len(r.Matches))
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
