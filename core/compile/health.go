package compile

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/probe"
	"github.com/sluice-gateway/sluice/health"
	"github.com/sluice-gateway/sluice/lb"
)

// checks are the checks of an upstream's endpoints. What they know outlives configurations: an address that stays keeps its state.
type checks struct {
	checker *probe.Checker
	tls     *upstreamTLS       // of the probes, if they have their own; nil: that of the upstream, or none
	quit    context.CancelFunc // ends the checker; nil: it has not begun, or has ended
	done    sync.WaitGroup
}

// checking is how the endpoints of an upstream are checked by a configuration.
type checking struct {
	settings *probe.Settings
	tls      *upstreamTLS // as that of checks
}

// checking compiles the check of u, whose TLS is t; before is the check's own TLS in force. nil: there is no check.
func (r *Registry) checking(c *Compiled, u *config.Upstream, t, before *upstreamTLS) (*checking, error) {
	h := u.Health
	if h == nil {
		return nil, nil
	}
	q := &probe.Question{HTTP2: u.Protocol != "h1", Port: uint16(h.Port)}
	out := &checking{}
	switch {
	case h.TLS == "off":
		t = nil
	case h.TLS == "own", h.TLS == "on" && t == nil:
		var err error
		if t, err = c.secure(&config.Upstream{Name: u.Name, Protocol: u.Protocol, TLS: h.OwnTLS}, before); err != nil {
			return nil, err
		}
		out.tls = t
	}
	secured := ""
	if t != nil {
		q.TLS, secured = t.config, t.identity
	}
	switch u.Proxy {
	case "v1":
		q.Proxy = 1
	case "v2":
		q.Proxy = 2
	}
	asked := ""
	switch {
	case h.HTTP != nil:
		q.HTTP = httpQuestion(h.HTTP)
		asked = fmt.Sprintf("http %q %q %q %q %v %v", q.HTTP.Method, q.HTTP.Path, q.HTTP.Host, q.HTTP.Fields, q.HTTP.Statuses, q.HTTP.Body)
	case h.TCP != nil:
		q.TCP = &probe.TCP{Send: h.TCP.Send, Expect: h.TCP.Expect}
		asked = fmt.Sprintf("tcp %q %q", q.TCP.Send, q.TCP.Expect)
	default:
		q.GRPC = &probe.GRPC{Service: h.GRPC.Service}
		asked = fmt.Sprintf("grpc %q", q.GRPC.Service)
	}
	out.settings = &probe.Settings{
		Spec: health.CheckSpec{Interval: h.Interval, UnhealthyInterval: h.UnhealthyInterval, StartInterval: h.StartInterval,
			JitterPercent: h.Jitter, Healthy: h.Healthy, Unhealthy: h.Unhealthy, InitiallyHealthy: h.Initial != "unhealthy"},
		Timeout:  h.Timeout,
		AtOnce:   h.AtOnce,
		Question: q,
		Identity: fmt.Sprintf("%s, %t %d %d, %q", asked, q.HTTP2, q.Port, q.Proxy, secured),
	}
	return out, nil
}

func httpQuestion(c *config.HTTPCheck) *probe.HTTP {
	q := &probe.HTTP{Method: c.Method, Path: c.Path, Host: c.Host, Fields: http.Header{}, Body: c.Body}
	for i := range c.Headers {
		q.Fields.Add(c.Headers[i].Name, c.Headers[i].Value.Reveal())
	}
	for _, r := range c.Statuses {
		q.Statuses = append(q.Statuses, probe.StatusRange(r))
	}
	return q
}

// setChecks puts a check in force, nil for none, whose files are watched until ctx ends. The caller holds d.mu.
func (d *discovered) setChecks(ctx context.Context, c *checking) {
	if c == nil {
		c = &checking{}
	}
	d.checks.tls = c.tls
	if err := d.checks.checker.Configure(c.settings); err != nil {
		d.registry.log.Error("cannot check endpoints", "upstream", d.upstream.Name, "error", err)
	}
	if c.settings != nil && d.checks.quit == nil {
		running, quit := context.WithCancel(context.Background())
		d.checks.quit = quit
		d.checks.done.Go(func() { d.checks.checker.Run(running) })
	}
	if c.tls != nil && c.tls.store != nil {
		d.done.Go(func() { c.tls.store.Watch(ctx, watchEvery, d.renewed) })
	}
}

// end ends all that runs in the background.
func (d *discovered) end() {
	d.stop()
	if d.checks.quit != nil { // which configure alone sets, on the same goroutine
		d.checks.quit()
		d.checks.done.Wait()
		d.checks.quit = nil
	}
}

const checkFlags = lb.FailedCheck | lb.Unchecked

// heedChecks tells the checker which endpoints there are, and makes their flags what it knows of them. It says whether one has
// changed. The caller holds d.mu.
func (d *discovered) heedChecks() (changed bool) {
	all := d.upstream.Endpoints()
	asked := make([]probe.Endpoint, 0, len(all))
	for _, e := range all {
		host, name := e.Host()
		flags := e.Load.Flags()
		asked = append(asked, probe.Endpoint{Load: e.Load, Address: e.Address, Host: host, Name: name, Off: flags&lb.Disabled != 0,
			Serves: flags&lb.Unchecked == 0})
	}
	if err := d.checks.checker.Assign(asked); err != nil {
		d.registry.log.Warn("some endpoints are not checked", "upstream", d.upstream.Name, "error", err)
	}
	for _, e := range all {
		var flags lb.Flag
		if s, checked := d.checks.checker.State(e.Load); checked && s.Fresh {
			flags = lb.Unchecked
		} else if checked && !s.Healthy {
			flags = lb.FailedCheck
		}
		changed = d.upstream.Flag(e, checkFlags, flags) || changed
	}
	return changed
}

// checked hears what probes came to, all of them, whether the state of an endpoint changes by it or not.
func (d *discovered) checked(results []probe.Result) {
	changed := false
	for i := range results {
		r := &results[i]
		if !r.Changed {
			continue
		}
		changed = true
		log := d.registry.log.With("upstream", d.upstream.Name, "endpoint", r.Endpoint.Address, "host", r.Endpoint.Host)
		if r.Healthy {
			log.Info("endpoint is healthy")
		} else {
			log.Warn("endpoint is unhealthy", "reason", r.Failure.Text)
		}
	}
	d.changeIf(context.Background(), func() bool {
		for i := range results {
			if r := &results[i]; r.Failure == nil && r.Healthy {
				changed = d.passed(r.Endpoint.Load) || changed
			}
		}
		return changed
	})
}

// initialFlags are those of an address that is new to an upstream.
func initialFlags(h *config.Health) lb.Flag {
	if h != nil && h.Initial == "unhealthy" {
		return lb.Unchecked
	}
	return 0
}

// Checker is that of an upstream; nil: there is no such upstream. It may be called from any goroutine.
func (c *Compiled) Checker(name string) *probe.Checker {
	if d := c.found[name]; d != nil {
		return d.checks.checker
	}
	return nil
}

// Unchecked names an upstream whose endpoints wait for their first check, where they get nothing before it; "" if there is none.
func (c *Compiled) Unchecked() string {
	for i := range c.Config.Upstreams {
		u := &c.Config.Upstreams[i]
		if u.Health != nil && u.Health.Initial == "unhealthy" && c.found[u.Name].checks.checker.Unsettled() > 0 {
			return u.Name
		}
	}
	return ""
}

// CheckRecords are the states of endpoints by upstream, for another process.
func (c *Compiled) CheckRecords() map[string][]probe.Record {
	all := map[string][]probe.Record{}
	for name, d := range c.found {
		if records := d.checks.checker.Records(); len(records) > 0 {
			all[name] = records
		}
	}
	return all
}

// InheritChecks makes endpoints begin in the states that another process recorded. It is called before Apply.
func (c *Compiled) InheritChecks(all map[string][]probe.Record) error {
	for name, records := range all {
		if d := c.found[name]; d != nil {
			if err := d.checks.checker.Inherit(records); err != nil {
				return fmt.Errorf("upstream %q: %w", name, err)
			}
		}
	}
	return nil
}
