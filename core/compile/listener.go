package compile

import (
	"strconv"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/route"
	"github.com/sluice-gateway/sluice/tuning"
)

func (r *Registry) listener(c *Compiled, spec *config.Listener) (listen.Settings, error) {
	l := &core.Listener{
		Name:             spec.Name,
		Metric:           r.metrics.Listener(spec.Name),
		Scheme:           "http",
		Port:             portOf(spec),
		HeaderTimeout:    spec.Timeouts.Header,
		IdleTimeout:      spec.Timeouts.Idle,
		BodyTimeout:      spec.Timeouts.Body,
		WriteTimeout:     spec.Timeouts.Write,
		HeaderBytes:      spec.Limits.HeaderBytes,
		Headers:          spec.Limits.Headers,
		BodyBytes:        spec.Limits.BodyBytes,
		Connections:      spec.Limits.Connections,
		ConnectionsPerIP: spec.Limits.ConnectionsPerIP,
		MinRate:          core.MinRate(spec.Limits.MinRate),
		HalfClose:        spec.HalfClose,
		MergeSlashes:     spec.MergeSlashes,
		RequestTimeout:   spec.RequestTimeout == "header",
		Forward:          core.Forward(spec.Forward),
		HTTP2:            core.HTTP2(spec.HTTP2),
	}
	s := listen.Settings{Listener: l, H1: spec.Protocols.H1, H2C: spec.Protocols.H2C, QuickAck: choice(spec.Socket.QuickAck) == tuning.On,
		Rate: listen.Rate{Most: spec.Limits.ConnectionRatePerIP.Limit, Period: spec.Limits.ConnectionRatePerIP.Period}}
	if spec.TLS != nil {
		l.Scheme = "https"
	}
	if spec.ProxyProtocol != nil {
		s.Proxies = listen.NewNetworks(spec.ProxyProtocol.From)
	}
	if spec.RealIP != nil {
		p, err := listen.NewRealIP(spec.RealIP.Header, spec.RealIP.Trusted, spec.RealIP.Depth)
		if err != nil {
			return s, err
		}
		l.Before = append(l.Before, core.Step{Name: "real_ip", Request: p})
	}
	if step, ok := c.challenges(); ok && spec.TLS == nil {
		l.Before = append(l.Before, step)
	}
	if spec.Redirect != "" {
		p, err := redirectAll(c.Config, spec.Redirect)
		if err != nil {
			return s, err
		}
		l.Before = append(l.Before, core.Step{Name: "redirect", Request: p})
	}
	return s, nil
}

func portOf(spec *config.Listener) uint16 {
	for _, b := range spec.Binds {
		if b.Path == "" {
			return b.Addr.Port()
		}
	}
	return 0
}

// redirecting answers every request of a listener, before any route is looked for.
type redirecting struct{ action *route.Redirect }

func (p redirecting) OnRequest(x *core.Exchange) core.Verdict {
	p.action.Answer(x)
	return core.Respond
}

// redirectAll sends clients to the scheme and port of the listener of that name. 308 keeps the method (RFC 9110, 15.4.9).
func redirectAll(cfg *config.Config, name string) (core.RequestPolicy, error) {
	to := "http://{host}"
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if l.Name != name {
			continue
		}
		usual := uint16(80)
		if l.TLS != nil {
			to, usual = "https://{host}", 443
		}
		if port := portOf(l); port != usual && port != 0 {
			to += ":" + strconv.Itoa(int(port))
		}
	}
	action, err := route.NewRedirect(to+"{path}?{query}", 308, nil)
	return redirecting{action}, err
}
