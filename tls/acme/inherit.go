package acme

import "time"

// Inherit takes over what prev, whose place m takes, has in memory: certificates of names that both have, so that clients
// get them without a gap, and failures with their pauses, so that a change of configuration is no way around these. With
// onDemand those that were got on demand come too; it says that both have the same Options.OnDemand. prev may be running or
// closed, m must not have been started yet. Nothing is taken from another storage or directory.
func (m *Issuer) Inherit(prev *Issuer, onDemand bool) {
	if prev.options.Storage != m.options.Storage || prev.options.Directory != m.options.Directory {
		return
	}
	for name, e := range m.names {
		if old := prev.entry(name); old != nil {
			e.take(old)
		}
	}
	if !onDemand || m.options.OnDemand == nil {
		return
	}
	m.demandMu.Lock()
	defer m.demandMu.Unlock()
	for _, old := range prev.onDemand() {
		if old.cert.Load() == nil || m.names[old.name] != nil || len(m.demand) >= m.mostOnDemand {
			continue
		}
		e := &entry{name: old.name}
		e.take(old)
		e.used.Store(old.used.Load())
		m.demand[e.name] = e
		m.live.Store(e.name, e)
	}
}

// take copies what is known of a name.
func (e *entry) take(old *entry) {
	if cert := old.cert.Load(); cert != nil {
		e.publish(cert)
	}
	old.mu.Lock()
	failure, failures, next := old.failure, old.failures, old.next
	old.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure, e.failures = failure, failures
	if failure != nil && next.After(time.Now()) {
		e.next = next
	}
}
