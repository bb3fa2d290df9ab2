package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Dump returns the configuration as YAML, in one file and with all defaults written. Parse reads it back as the same
// configuration, but for positions, and for what was given by reference or is a credential, which is shown as "***".
func (c *Config) Dump() []byte { return c.dump(false) }

// dump shows in clear, unlike Dump, the credentials that stand in the file. That never leaves the process.
func (c *Config) dump(clear bool) []byte {
	w := &dumper{clear: clear}
	w.secrets(&c.Secrets)
	w.line("loops: %d", c.Loops)
	w.line("drain: { time: %s, tunnels: %s }", formatDuration(c.Drain.Time), formatDuration(c.Drain.Tunnels))
	w.line("log: { level: %s, format: %s }", c.Log.Level, c.Log.Format)
	w.accessLog(&c.AccessLog)
	w.line("admin: %s", quote(orOff(c.Admin.Bind.String())))
	if len(c.Resolvers) > 0 {
		w.line("resolvers: %s", serverList(c.Resolvers))
	}
	w.tuning(&c.Tuning)
	if c.Cluster != nil {
		w.block("cluster:", func() { w.cluster(c.Cluster) })
	}
	w.identityFields(c.Identity)
	w.block("listeners:", func() {
		for i := range c.Listeners {
			w.block(quote(c.Listeners[i].Name)+":", func() { w.listener(&c.Listeners[i]) })
		}
	})
	if len(c.Upstreams) > 0 {
		w.block("upstreams:", func() {
			for i := range c.Upstreams {
				w.block(quote(c.Upstreams[i].Name)+":", func() { w.upstream(&c.Upstreams[i]) })
			}
		})
	}
	if len(c.Policies) > 0 {
		w.block("policies:", func() {
			for i := range c.Policies {
				w.block(quote(c.Policies[i].Name)+":", func() { w.policy(&c.Policies[i]) })
			}
		})
	}
	w.consumers(c)
	if len(c.Routes) > 0 {
		w.block("routes:", func() {
			for i := range c.Routes {
				w.item(func() { w.route(&c.Routes[i]) })
			}
		})
	}
	return w.out.Bytes()
}

// String returns the address as it is written; "" for the zero Bind.
func (b Bind) String() string {
	switch {
	case b.Path != "":
		return "unix:" + b.Path
	case !b.Addr.IsValid():
		return ""
	case b.Addr.Addr() == netip.IPv6Unspecified():
		return ":" + strconv.Itoa(int(b.Addr.Port()))
	}
	return b.Addr.String()
}

// dumper writes lines at an indentation.
type dumper struct {
	out    bytes.Buffer
	indent int
	clear  bool // credentials that stand in the file are shown
	dash   bool // the next line is the first of an item
}

func (w *dumper) line(format string, args ...any) {
	indent := w.indent
	if w.dash {
		indent -= 2
	}
	w.out.WriteString(strings.Repeat(" ", indent))
	if w.dash {
		w.out.WriteString("- ")
		w.dash = false
	}
	fmt.Fprintf(&w.out, format, args...)
	w.out.WriteByte('\n')
}

func (w *dumper) block(head string, body func()) {
	w.line("%s", head)
	w.indent += 2
	body()
	w.indent -= 2
}

func (w *dumper) item(body func()) {
	w.indent += 2
	w.dash = true
	body()
	w.indent -= 2
}

func (w *dumper) listener(l *Listener) {
	binds := make([]string, len(l.Binds))
	for i, b := range l.Binds {
		binds[i] = b.String()
	}
	w.line("bind: %s", quoteList(binds))
	t, m, f := &l.Timeouts, &l.Limits, &l.Forward
	w.line("timeouts: { header: %s, idle: %s, body: %s, write: %s }",
		formatDuration(t.Header), formatDuration(t.Idle), formatDuration(t.Body), formatDuration(t.Write))
	w.line("limits: { header_bytes: %s, headers: %d, body_bytes: %s, connections: %d, connections_per_ip: %d%s }",
		formatSize(int64(m.HeaderBytes)), m.Headers, formatSize(m.BodyBytes), m.Connections, m.ConnectionsPerIP, rates(m))
	if r := l.RealIP; r != nil {
		w.line("real_ip: { header: %s, trusted: %s, depth: %d }", r.Header, prefixList(r.Trusted), r.Depth)
	}
	if p := l.ProxyProtocol; p != nil {
		w.line("proxy_protocol: %s", prefixList(p.From))
	}
	if l.Redirect != "" {
		w.line("redirect: %s", quote(l.Redirect))
	}
	if !l.passesOnly() {
		w.line("half_close: %t", l.HalfClose)
		w.line("merge_slashes: %t", l.MergeSlashes)
		w.line("request_timeout: %s", l.RequestTimeout)
		w.line("forward: { x_forwarded: %t, forwarded: %t, via: %s, request_id: %s, client_cert: %t, xfcc: %t }",
			f.XForwarded, f.Forwarded, quote(orOff(f.Via)), quote(orOff(f.RequestID)), f.ClientCert, f.XFCC)
		w.line("protocols: [%s]", strings.Join(l.Protocols.names(), ", "))
	}
	if h := &l.HTTP2; l.speaksHTTP2() {
		w.line("http2: { streams: %d, keepalive: %s, keepalive_timeout: %s, max_age: %s, max_age_grace: %s }", h.Streams, formatDuration(h.KeepAlive),
			formatDuration(h.KeepAliveTimeout), formatDuration(h.MaxAge), formatDuration(h.MaxAgeGrace))
	}
	w.socket(&l.Socket)
	if l.TLS != nil {
		w.block("tls:", func() { w.tls(l.TLS) })
	}
}

func (p Protocols) names() (names []string) {
	for _, known := range []struct {
		on   bool
		name string
	}{{p.H1, "h1"}, {p.H2, "h2"}, {p.H2C, "h2c"}} {
		if known.on {
			names = append(names, known.name)
		}
	}
	return names
}

func (c *Certificate) text() string {
	cert := c.Cert
	if c.Inline {
		cert = redacted
	}
	if c.Key.Reveal() == "" {
		return quote(cert)
	}
	return fmt.Sprintf("{ cert: %s, key: %s }", quote(cert), quote(c.Key.String()))
}

func (w *dumper) upstreamTLS(t *UpstreamTLS) {
	if t.CA != "" {
		w.line("ca: %s", quote(t.CA))
	}
	if t.ServerName != "" {
		w.line("server_name: %s", quote(t.ServerName))
	}
	if len(t.Pins) > 0 {
		w.line("pins: %s", quoteList(t.Pins))
	}
	if t.Certificate != nil {
		w.line("certificate: %s", t.Certificate.text())
	}
	w.line("min_version: %s", quote(t.MinVersion))
	w.line("insecure_skip_verify: %t", t.Insecure)
}

func (w *dumper) tls(t *TLS) {
	if t.Passthrough {
		w.line("passthrough: true")
	} else {
		w.tlsEnd(t)
	}
	w.line("handshakes: %d", t.Handshakes)
	if t.Rate > 0 {
		w.line("handshake_rate: %d/s", t.Rate)
	}
	w.line("timeout: %s", formatDuration(t.Timeout))
}

// tlsEnd writes how TLS is ended here.
func (w *dumper) tlsEnd(t *TLS) {
	if len(t.Certificates) > 0 {
		w.block("certificates:", func() {
			for i := range t.Certificates {
				w.line("- %s", t.Certificates[i].text())
			}
		})
	}
	if t.ACME != nil {
		w.block("acme:", func() { w.acme(t.ACME) })
	}
	w.line("ocsp: %s", onOff(t.OCSP))
	if t.Default != "" {
		w.line("default: %s", quote(t.Default))
	}
	w.line("unknown: %s", t.Unknown)
	w.line("min_version: %s", quote(t.MinVersion))
	w.ciphers(t.Ciphers)
	if t.ClientAuth != nil {
		w.clientAuth(t.ClientAuth)
	}
	if len(t.Policies) > 0 {
		w.block("policies:", func() {
			for i := range t.Policies {
				w.item(func() { w.tlsPolicy(&t.Policies[i]) })
			}
		})
	}
	switch k := &t.Tickets; {
	case k.Off:
		w.line("tickets: false")
	case k.Secret.Reveal() != "":
		w.line("tickets: { secret: %s, rotate: %s }", w.secret(k.Secret), formatDuration(k.Rotate))
	default:
		w.line("tickets: { rotate: %s }", formatDuration(k.Rotate))
	}
}

func (w *dumper) clientAuth(a *ClientAuth) {
	if len(a.CRL) == 0 {
		w.line("client_auth: { mode: %s, ca: %s }", a.Mode, quote(a.CA))
		return
	}
	w.line("client_auth: { mode: %s, ca: %s, crl: %s }", a.Mode, quote(a.CA), quoteList(a.CRL))
}

func (w *dumper) upstream(u *Upstream) {
	w.block("endpoints:", func() { w.endpoints(u) })
	p, t := &u.Pool, &u.Timeouts
	w.block("balance:", func() { w.balance(&u.Balance) })
	w.line("pool: { max_connections: %d, max_pending: %d, max_requests: %d, max_retries: %d, queue_timeout: %s, idle_per_loop: %d, idle_timeout: %s, requests_per_connection: %d }",
		p.MaxConnections, p.MaxPending, p.MaxRequests, p.MaxRetries, formatDuration(p.QueueTimeout), p.IdlePerLoop, formatDuration(p.IdleTimeout), p.RequestsPerConnection)
	w.line("timeouts: { connect: %s, tls: %s, header: %s, per_try: %s, idle: %s, total: %s, tunnel: %s, tunnel_life: %s }", formatDuration(t.Connect),
		formatDuration(t.TLS), formatDuration(t.Header), formatDuration(t.PerTry), formatDuration(t.Idle), formatDuration(t.Total), formatDuration(t.Tunnel), formatDuration(t.TunnelLife))
	w.outlier(u.Outlier)
	w.breaker(u.Breaker)
	w.adaptive(u.Adaptive)
	w.resolving(&u.Resolve)
	w.line("replay_bytes: %s", formatSize(int64(u.ReplayBytes)))
	w.line("retry: %s", u.Retry.text(&u.RetryBudget))
	w.line("hedge: %s", u.Hedge.text())
	if u.Authorize != nil {
		w.authorize(u.Authorize)
	}
	if u.Proxy != "" {
		w.line("proxy_protocol: %s", u.Proxy)
	}
	w.socket(&u.Socket)
	if u.TLS != nil {
		w.block("tls:", func() { w.upstreamTLS(u.TLS) })
	}
	if u.Health != nil {
		w.block("health:", func() { w.health(u.Health) })
	}
	if u.Protocol != "h1" {
		h := &u.HTTP2
		w.line("protocol: %s", u.Protocol)
		w.line("http2: { streams: %d, keepalive: %s, keepalive_timeout: %s }", h.Streams, formatDuration(h.KeepAlive), formatDuration(h.KeepAliveTimeout))
	}
}

func (w *dumper) route(r *Route) {
	w.line("name: %s", quote(r.Name))
	w.block("match:", func() {
		for i := range r.Matches {
			w.item(func() { w.match(&r.Matches[i]) })
		}
	})
	if r.Priority != 0 {
		w.line("priority: %d", r.Priority)
	}
	if len(r.To) > 0 {
		key := "to:"
		if r.Passthrough {
			key = "passthrough:"
		}
		w.block(key, func() { w.targets(r) })
	}
	w.shape(r)
	if a := r.Respond; a != nil && a.Keys {
		w.line("respond: jwks")
	} else if a != nil {
		w.block("respond:", func() { w.respond(a) })
	}
	if a := r.Redirect; a != nil {
		w.line("redirect: { to: %s, status: %d }", quote(a.To), a.Status)
	}
	if r.StripPrefix != "" {
		w.line("strip_prefix: %s", quote(r.StripPrefix))
	}
	if a := r.ReplacePrefix; a != nil {
		w.line("replace_prefix: { prefix: %s, with: %s }", quote(a.Prefix), quote(a.With))
	}
	if a := r.Rewrite; a != nil {
		w.line("rewrite: { pattern: %s, to: %s }", quote(a.Pattern.String()), quote(a.To))
	}
	if len(r.To) > 0 && !r.Passthrough {
		w.line("host: %s", quote(r.Host))
	}
	if r.Timeout != time.Duration(0) {
		w.line("timeout: %s", formatDuration(r.Timeout))
	}
	w.attempts(r)
	if r.BodyBytes != nil {
		w.line("body_bytes: %s", formatSize(*r.BodyBytes))
	}
	if len(r.Use) > 0 {
		w.block("use:", func() {
			for _, u := range r.Use {
				if u.Inline == nil {
					w.line("- %s", quote(u.Name))
				} else {
					w.item(func() { w.policy(u.Inline) })
				}
			}
		})
	}
	w.breaker(r.Breaker)
	if r.ClientCert != nil {
		w.clientCert(r.ClientCert)
	}
	if r.LogSample != nil {
		w.line("log_sample: %s", formatShare(*r.LogSample))
	}
}

func (w *dumper) match(m *Match) {
	if m.predicates() == 0 || m.predicates() == 1 && len(m.Methods) > 0 {
		w.line("%s", quote(m.short()))
		return
	}
	w.line("host: %s", quote(m.Host.String()))
	if m.Path.Kind != PathAny {
		w.line("path: %s", quote(m.Path.String()))
	}
	further := m.further()
	for _, list := range []struct {
		key    string
		values []string
	}{{"listener", further.Listeners}, {"methods", m.Methods}, {"content_type", further.ContentTypes}} {
		if len(list.values) > 0 {
			w.line("%s: %s", list.key, quoteList(list.values))
		}
	}
	if len(further.Clients) > 0 {
		w.line("client: %s", prefixList(further.Clients))
	}
	w.fields("headers", further.Headers)
	w.fields("query", further.Query)
	w.fields("cookies", further.Cookies)
}

func (w *dumper) fields(key string, list []FieldMatch) {
	if len(list) == 0 {
		return
	}
	w.block(key+":", func() {
		for _, f := range list {
			value := w.under(f.Name, f.Value)
			switch f.Op {
			case FieldPresent:
				value = "true"
			case FieldAbsent:
				value = "false"
			case FieldRegex:
				value = w.under(f.Name, "~"+f.Value)
			}
			w.line("%s: %s", quote(f.Name), value)
		}
	})
}

func (w *dumper) respond(a *Respond) {
	w.line("status: %d", a.Status)
	if body := a.Body.String(); body != "" {
		w.line("body: %s", quote(body))
	}
	w.headers(a.Headers)
}

// headers writes lines of an answer, those with one name as a list.
func (w *dumper) headers(list []Header) {
	if len(list) == 0 {
		return
	}
	w.block("headers:", func() {
		for i := 0; i < len(list); {
			name := list[i].Name
			var values []string
			for ; i < len(list) && list[i].Name == name; i++ {
				values = append(values, w.secret(list[i].Value))
			}
			w.line("%s: [%s]", quote(name), strings.Join(values, ", "))
		}
	})
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func orOff(s string) string {
	if s == "" {
		return "off"
	}
	return s
}

func prefixList(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = prefixText(p)
	}
	return quoteList(texts)
}

func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote writes a YAML string: plain where nobody could take it for anything else, else in double quotes.
func quote(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case strconv.IsPrint(r) && r != 0xfeff:
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func isPlain(s string) bool {
	switch strings.ToLower(s) {
	case "", "true", "false", "null", "yes", "no", "on", "y", "n":
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && c == '/'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '-' || c == '.')) {
			return false
		}
	}
	return true
}
