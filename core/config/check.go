package config

import (
	"maps"
	"net/netip"
)

// check looks at the whole, when all files have been read.
func (l *loader) check() {
	l.checkBinds()
	l.nameRoutes()
	if l.broken || l.exhausted {
		return // what seems unknown, unused or empty may stand in the part that was not read
	}
	if len(l.cfg.Listeners) == 0 {
		at := Pos{File: l.sources[0].name, Line: 1, Column: 1}
		if pos, ok := l.given["listeners in "+at.File]; ok {
			at = pos
		}
		l.problemAt(at, `write listeners: { http: { bind: ":80" } }`, "there is no listener")
	}
	partial := false
	for i := range l.names {
		partial = partial || l.names[i].partial
	}
	l.checkConsumersFile()
	l.checkUpstreams(partial)
	l.checkSubsets()
	l.checkShapes()
	l.checkFallbacks()
	l.checkPolicies(partial)
	l.checkBalance(partial)
	l.checkPerTry()
	l.checkHedges()
	l.checkIdentity()
	l.checkIdentityHeaders()
	l.checkIdentityToken()
	l.checkLogins()
	l.checkStores()
	l.checkAccess()
	l.checkLimits()
	l.checkRedirects()
	l.checkMatched()
	l.checkPassthrough(partial)
	l.checkClientCerts()
	l.checkChallenges()
	if !partial {
		l.checkReach()
	}
	l.checkShadows()
}

// checkUpstreams finds targets that do not exist, and upstreams that are no target.
func (l *loader) checkUpstreams(partial bool) {
	used := make([]bool, len(l.cfg.Upstreams))
	for i := range l.cfg.Routes {
		r := &l.cfg.Routes[i]
		for _, name := range r.beside() {
			if u, ok := l.upstreams[name]; ok {
				used[u] = true
			}
		}
		for _, t := range r.To {
			if u, ok := l.upstreams[t.Upstream]; ok {
				used[u] = true
				continue
			}
			l.problemAt(t.Pos, l.hint(t.Upstream, maps.Keys(l.upstreams)), "there is no upstream %q", clip(t.Upstream))
		}
	}
	for _, f := range l.fallbacks() {
		if u, ok := l.upstreams[f.To.Upstream]; ok {
			used[u] = true
		}
	}
	for i := range l.cfg.Upstreams {
		u := &l.cfg.Upstreams[i]
		l.checkHealth(u)
		if !used[i] && !partial {
			l.warnAt(u.Pos, "", "no route uses upstream %q", u.Name)
		}
	}
}

// checkRedirects finds listeners that redirect to what does not answer.
func (l *loader) checkRedirects() {
	for _, ref := range l.redirects {
		i, ok := l.listeners[ref.name]
		if !ok {
			l.problemAt(ref.pos, l.hint(ref.name, maps.Keys(l.listeners)), "there is no listener %q", clip(ref.name))
			continue
		}
		to := &l.cfg.Listeners[i]
		hasPort := len(to.Binds) == 0 // its binds are wrong, which was reported
		for _, b := range to.Binds {
			hasPort = hasPort || b.Path == ""
		}
		switch {
		case i == ref.from:
			l.problemAt(ref.pos, "", "listener %q redirects to itself", ref.name)
		case to.Redirect != "":
			l.problemAt(ref.pos, "", "listener %q redirects too", ref.name)
		case !hasPort:
			l.problemAt(ref.pos, "", "listener %q has no port to redirect to", ref.name)
		}
	}
}

// checkMatched finds matches that name a listener that does not exist, or never gives them a request.
func (l *loader) checkMatched() {
	for _, ref := range l.matched {
		if i, ok := l.listeners[ref.name]; !ok {
			l.problemAt(ref.pos, l.hint(ref.name, maps.Keys(l.listeners)), "there is no listener %q", clip(ref.name))
		} else if l.cfg.Listeners[i].Redirect != "" {
			l.warnAt(ref.pos, "", "listener %q redirects every request, so this match gets none", ref.name)
		}
	}
}

// checkReach finds listeners whose requests no route takes.
func (l *loader) checkReach() {
	reached := make([]bool, len(l.cfg.Listeners))
	for i := range l.cfg.Routes {
		if l.cfg.Routes[i].Passthrough {
			continue
		}
		for j := range l.cfg.Routes[i].Matches {
			m := &l.cfg.Routes[i].Matches[j]
			if len(m.Listeners()) == 0 {
				return
			}
			for _, name := range m.Listeners() {
				if k, ok := l.listeners[name]; ok {
					reached[k] = true
				}
			}
		}
	}
	for i := range l.cfg.Listeners {
		if ln := &l.cfg.Listeners[i]; !reached[i] && ln.Redirect == "" && !ln.passesOnly() {
			l.problemAt(ln.Pos, "", "listener %q is unreachable: no route takes its requests", ln.Name)
		}
	}
}

// portUse is what listens on one port. An IPv6 wildcard takes IPv4 too.
type portUse struct {
	addrs          map[netip.Addr]Pos
	any4, any6     *Pos
	first4, first6 *Pos // of the addresses other than wildcards
}

// checkBinds finds addresses that cannot be listened on at the same time.
func (l *loader) checkBinds() {
	ports := map[uint16]*portUse{}
	paths := map[string]Pos{}
	for i := range l.cfg.Listeners {
		for _, b := range l.cfg.Listeners[i].Binds {
			l.checkBind(b, ports, paths)
		}
	}
	admin := l.cfg.Admin.Bind
	if admin.Pos.Line == 0 {
		if at, taken := paths[admin.Path]; taken && admin.Path != "" {
			l.problemAt(at, "", "this is where the admin API listens")
		}
		return
	}
	l.checkBind(admin, ports, paths)
	if admin.Addr.IsValid() && !admin.Addr.Addr().IsLoopback() {
		l.problemAt(admin.Pos, "bind it to 127.0.0.1 or to a unix socket", "the admin API asks for no password, and other hosts could reach it here")
	}
}

func (l *loader) checkBind(b Bind, ports map[uint16]*portUse, paths map[string]Pos) {
	if b.Path != "" {
		if first, taken := paths[b.Path]; taken {
			l.problemAt(b.Pos, "", "this overlaps with the address at %s", first)
		} else {
			paths[b.Path] = b.Pos
		}
		return
	}
	if b.Addr.Port() == 0 {
		return // the kernel chooses one that is free
	}
	use := ports[b.Addr.Port()]
	if use == nil {
		use = &portUse{addrs: map[netip.Addr]Pos{}}
		ports[b.Addr.Port()] = use
	}
	if first := use.overlap(b.Addr.Addr()); first != nil {
		l.problemAt(b.Pos, "", "this overlaps with the address at %s", *first)
		return
	}
	use.add(b.Addr.Addr(), &b.Pos)
}

func (u *portUse) overlap(a netip.Addr) *Pos {
	if at, ok := u.addrs[a]; ok {
		return &at
	}
	candidates := []*Pos{u.any6}
	if a.Is4() {
		candidates = append(candidates, u.any4)
	}
	if a.IsUnspecified() {
		candidates = append(candidates, u.any4, u.first4)
		if a.Is6() {
			candidates = append(candidates, u.first6)
		}
	}
	for _, at := range candidates {
		if at != nil {
			return at
		}
	}
	return nil
}

func (u *portUse) add(a netip.Addr, at *Pos) {
	u.addrs[a] = *at
	slot := &u.first6
	switch {
	case a.IsUnspecified() && a.Is6():
		slot = &u.any6
	case a.IsUnspecified():
		slot = &u.any4
	case a.Is4():
		slot = &u.first4
	}
	if *slot == nil {
		*slot = at
	}
}
