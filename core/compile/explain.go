package compile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/http1"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/route"
)

// ExplainSpec is a request that is only asked about: nothing is sent.
type ExplainSpec struct {
	Method   string     // "": GET
	URL      string     // [scheme://]host[:port][/path][?query], or a path where Headers have a Host; for CONNECT host:port
	Headers  []string   // lines "name: value"
	Client   netip.Addr // of the connection's peer; zero: 127.0.0.1
	Listener string     // "": the one that listens on the URL's port, else the first that has routes
}

// Explained says which rule of a configuration a request meets.
type Explained struct {
	Listener *config.Listener
	Client   netip.Addr         // as the listener's real_ip finds it
	Path     string             // as routes see it: normalised
	Refused  string             // why no route is looked for; "" where one is
	Match    *Candidate         // the one that takes the request; nil: none does
	Asked    []*config.Upstream // that its route may ask, its canary and mirror too, each once
	Params   []string           // of its path, as name=value
	Tried    []Candidate
	Others   int // rules that were not tried, since their host or path is another
}

// Candidate is a match whose host and path a request meets, a regular expression's path aside.
type Candidate struct {
	Route   *config.Route
	Match   *config.Match
	Host    string // its class: exact, wildcard or any
	Path    string // its class: exact, prefix, regex or any
	Refused string // the condition that does not hold; "" where all do
}

// maxExplainHeaders bounds the lines of an ExplainSpec, whatever the listener takes.
const maxExplainHeaders = 1000

// Explain compiles cfg as Registry.CompileFirst does and looks for the request's route in the same table that serves. It opens no
// socket and resolves no name. An error says that cfg cannot be compiled, or that the question itself cannot be understood.
func Explain(cfg *config.Config, spec ExplainSpec) (*Explained, error) {
	registry := NewRegistry(nil, observe.New(observe.Options{Loops: 1}).Registry(), nil)
	c, err := registry.CompileFirst(cfg)
	if err != nil {
		return nil, err
	}
	target, host, port, err := spec.target()
	if err != nil {
		return nil, err
	}
	at, err := spec.listener(cfg, port)
	if err != nil {
		return nil, err
	}
	head, err := spec.head(target, host)
	if err != nil {
		return nil, err
	}
	x := &core.Exchange{Listener: c.Snapshot.Listeners[at]}
	client := spec.Client
	if !client.IsValid() {
		client = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	x.Client.Peer, x.Client.Addr = netip.AddrPortFrom(client, 0), client
	out := &Explained{Listener: &cfg.Listeners[at]}
	if failed := receive(x, head); failed != nil {
		out.Client, out.Refused = client, fmt.Sprintf("it is refused with status %d, %s", failed.Status, failed)
		return out, nil
	}
	out.Client, out.Path = x.Client.Addr, string(x.Request.Path)
	if out.Listener.Redirect != "" {
		out.Refused = fmt.Sprintf("listener %q redirects every request to listener %q", out.Listener.Name, out.Listener.Redirect)
		return out, nil
	}
	if s := c.Listeners[at].TLS; s != nil {
		if passed, found := s.Passed.FindBytes(core.HostOf(x.Request.Host())); found {
			out.Refused = fmt.Sprintf("route %q passes its TLS through: its requests are not seen", passed.Name)
			return out, nil
		}
	}
	out.explain(cfg, c.Snapshot.Router.(*route.Table), x)
	return out, nil
}

// receive reads head as the listener's connections do, up to where routes are looked for.
func receive(x *core.Exchange, head []byte) *core.Error {
	x.Request.Reset()
	n, err := http1.ParseRequest(&x.Request, head, &http1.Limits{HeaderBytes: x.Listener.HeaderBytes, Headers: x.Listener.Headers})
	if err != nil {
		return err
	}
	x.Request.Adopt(head[:n])
	if x.Request.Has(core.FieldExpect) && !x.Request.Expect100 {
		return core.ErrExpectation
	}
	for _, step := range x.Listener.Before {
		if step.Name == "real_ip" {
			step.Request.OnRequest(x)
		}
	}
	return x.Request.NormalizeTarget(x.Listener.MergeSlashes)
}

// explain asks the table.
func (out *Explained) explain(cfg *config.Config, table *route.Table, x *core.Exchange) {
	var rules []Candidate // in the order in which Compile gives them to the table
	for i := range cfg.Routes {
		if cfg.Routes[i].Passthrough {
			continue
		}
		for j := range cfg.Routes[i].Matches {
			rules = append(rules, Candidate{Route: &cfg.Routes[i], Match: &cfg.Routes[i].Matches[j]})
		}
	}
	matched := -1
	for _, found := range table.Explain(x) {
		c := rules[found.Rule]
		c.Host, c.Path, c.Refused = found.Host, found.Path, found.Refused
		if matched < 0 && c.Refused == "" {
			matched = len(out.Tried)
		}
		out.Tried = append(out.Tried, c)
	}
	out.Others = len(rules) - len(out.Tried)
	target := table.Match(x)
	switch {
	case target == nil:
		return
	case x.Request.Method == core.MethodConnect && !target.Connect:
		out.Refused = fmt.Sprintf("route %q does not name the method CONNECT: it is refused with status 405", target.Name)
		return
	case matched >= 0:
		out.Match = &out.Tried[matched]
	default: // it comes after the candidates that Explain gives
		for i := range rules {
			if rules[i].Route.Name == target.Name {
				out.Match = &rules[i]
				break
			}
		}
	}
	if out.Match != nil {
		out.Asked = askedBy(cfg, out.Match.Route)
	}
	for _, p := range x.Params {
		out.Params = append(out.Params, p.Name+"="+string(p.Value))
	}
}

// askedBy are the upstreams that a route names.
func askedBy(cfg *config.Config, r *config.Route) (all []*config.Upstream) {
	var names []string
	for i := range r.To {
		names = append(names, r.To[i].Upstream)
	}
	if r.Canary != nil {
		names = append(names, r.Canary.To.Upstream)
	}
	if r.Mirror != nil {
		names = append(names, r.Mirror.To)
	}
	for i := range cfg.Upstreams {
		if u := &cfg.Upstreams[i]; slices.Contains(names, u.Name) {
			all = append(all, u)
		}
	}
	return all
}

// target splits the URL into what stands in a request line and in Host.
func (spec *ExplainSpec) target() (target, host string, port int, err error) {
	rest := spec.URL
	port = 80
	if scheme, after, found := strings.Cut(rest, "://"); found && !strings.ContainsAny(scheme, "/?#") {
		switch strings.ToLower(scheme) {
		case "http":
		case "https":
			port = 443
		default:
			return "", "", 0, fmt.Errorf("cannot ask for %q: its scheme is neither http nor https", spec.URL)
		}
		rest = after
	}
	rest, _, _ = strings.Cut(rest, "#") // no client sends a fragment
	at := strings.IndexAny(rest, "/?")
	if at < 0 {
		at = len(rest)
	}
	host, target = rest[:at], rest[at:]
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	switch {
	case spec.Method == "CONNECT":
		target = host
	case host == "*":
		target, host = "*", ""
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		if port, err = strconv.Atoi(host[i+1:]); err != nil {
			return "", "", 0, fmt.Errorf("cannot ask for %q: its port is no number", spec.URL)
		}
	}
	return target, host, port, nil
}

// head writes the request. Nothing of spec can bring in a line of its own; the rest is for the parser to judge.
func (spec *ExplainSpec) head(target, host string) ([]byte, error) {
	method := spec.Method
	if method == "" {
		method = "GET"
	}
	if len(spec.Headers) > maxExplainHeaders {
		return nil, fmt.Errorf("cannot ask with more than %d headers", maxExplainHeaders)
	}
	if strings.ContainsAny(method+target+host+strings.Join(spec.Headers, ""), "\r\n") {
		return nil, errors.New("cannot ask with a line end in the method, the URL or a header")
	}
	given := false
	var fields strings.Builder
	for _, line := range spec.Headers {
		name, value, found := strings.Cut(line, ":")
		if !found || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("cannot read header %q: want \"name: value\"", line)
		}
		given = given || strings.EqualFold(name, "Host")
		fmt.Fprintf(&fields, "%s: %s\r\n", name, strings.TrimSpace(value))
	}
	if !given && host == "" {
		return nil, errors.New("cannot ask without a host: give a URL such as http://example.com/path, or a header Host")
	}
	text := method + " " + target + " HTTP/1.1\r\n"
	if !given {
		text += "Host: " + host + "\r\n"
	}
	return []byte(text + fields.String() + "\r\n"), nil
}

// listener gives the index of the listener that the request is taken to come in by.
func (spec *ExplainSpec) listener(cfg *config.Config, port int) (int, error) {
	if spec.Listener != "" {
		for i := range cfg.Listeners {
			if cfg.Listeners[i].Name == spec.Listener {
				return i, nil
			}
		}
		return 0, fmt.Errorf("there is no listener %q", spec.Listener)
	}
	for i := range cfg.Listeners {
		for _, b := range cfg.Listeners[i].Binds {
			if b.Path == "" && int(b.Addr.Port()) == port {
				return i, nil
			}
		}
	}
	for i := range cfg.Listeners {
		if cfg.Listeners[i].Redirect == "" {
			return i, nil
		}
	}
	return 0, nil
}
