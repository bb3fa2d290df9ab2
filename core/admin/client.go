package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// answerBytes bounds an answer: the metrics of tens of thousands of routes fit.
	answerBytes = 256 << 20
	dialTimeout = 5 * time.Second
	// answerTimeout is long enough for the reload of a large configuration.
	answerTimeout = 2 * time.Minute
)

// Client asks a gateway's admin API. Address is unix:/path, host:port or http://host:port.
type Client struct {
	Address string
}

// Refusal is the answer of a gateway that did not do what it was asked.
type Refusal struct {
	Status int
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// Healthy says whether the process answers.
func (c *Client) Healthy() error { return c.ask("GET", "/healthz", nil, nil) }

// Ready says why no requests are taken, nil when they are.
func (c *Client) Ready() error { return c.ask("GET", "/readyz", nil, nil) }

// Metrics gives the Prometheus text.
func (c *Client) Metrics() (text []byte, err error) {
	return text, c.ask("GET", "/metrics", nil, &text)
}

// Config gives the configuration in force as YAML.
func (c *Client) Config() (text []byte, err error) { return text, c.ask("GET", "/config", nil, &text) }

// Status gives the state of the gateway.
func (c *Client) Status() (s Status, err error) { return s, c.ask("GET", "/status", nil, &s) }

// Routes gives the routes in force.
func (c *Client) Routes() (r []RouteStatus, err error) { return r, c.ask("GET", "/routes", nil, &r) }

// Certs gives the certificates in force.
func (c *Client) Certs() (all []CertificateStatus, err error) {
	return all, c.ask("GET", "/certs", nil, &all)
}

// Keys gives the places that keys of tokens come from.
func (c *Client) Keys() (all []KeysStatus, err error) { return all, c.ask("GET", "/jwks", nil, &all) }

// Upstreams gives the upstreams in force.
func (c *Client) Upstreams() (u []UpstreamStatus, err error) {
	return u, c.ask("GET", "/upstreams", nil, &u)
}

// SetEndpoints changes endpoints of an upstream, and gives the state that results.
func (c *Client) SetEndpoints(set SetEndpoints) (u UpstreamStatus, err error) {
	return u, c.ask("PUT", "/upstreams", set, &u)
}

// LogLevel gives what the error log shows.
func (c *Client) LogLevel() (l LogLevel, err error) { return l, c.ask("GET", "/log-level", nil, &l) }

// SetLogLevel changes what the error log shows, for one route or, where it is "", for all.
func (c *Client) SetLogLevel(route, level string) (l LogLevel, err error) {
	return l, c.ask("PUT", "/log-level", SetLogLevel{Level: level, Route: route}, &l)
}

// Reload begins a reload, and waits for its end if wait is set: a Refusal then says why it was refused.
func (c *Client) Reload(wait bool) error {
	path := "/reload"
	if wait {
		path += "?wait=true"
	}
	return c.ask("POST", path, nil, nil)
}

// Upgrade begins an upgrade, to the binary with that absolute path or, with "", to what stands where the running one was started
// from; it waits until the new process serves if wait is set: a Refusal then says why it does not. With hurry a process before that still
// drains ends its tunnels first.
func (c *Client) Upgrade(binary string, hurry, wait bool) error {
	query := url.Values{"wait": {strconv.FormatBool(wait)}}
	if hurry {
		query.Set("hurry", "true")
	}
	if binary != "" {
		query.Set("binary", binary)
	}
	return c.ask("POST", "/upgrade?"+query.Encode(), nil, nil)
}

// ask makes one request. into takes the body: as it is in a *[]byte, else from JSON.
func (c *Client) ask(method, path string, body, into any) error {
	b, err := c.exchange(method, path, body)
	if err == nil {
		switch to := into.(type) {
		case nil:
		case *[]byte:
			*to = b
		default:
			err = json.Unmarshal(b, into)
		}
	}
	var refused *Refusal
	if err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("cannot ask gateway at %q for %s: %w", c.Address, strings.TrimPrefix(path, "/"), err)
	}
	return err
}

// exchange returns the body of a good answer; it is the caller's.
func (c *Client) exchange(method, path string, body any) ([]byte, error) {
	network, address, err := target(c.Address)
	if err != nil {
		return nil, err
	}
	host := address
	if network == "unix" {
		host = "localhost"
	}
	client := fasthttp.HostClient{
		Addr:                      host,
		Dial:                      func(string) (net.Conn, error) { return net.DialTimeout(network, address, dialTimeout) },
		ReadTimeout:               answerTimeout,
		WriteTimeout:              dialTimeout,
		MaxResponseBodySize:       answerBytes,
		MaxIdemponentCallAttempts: 1,
	}
	defer client.CloseIdleConnections()
	var q fasthttp.Request
	var p fasthttp.Response
	q.Header.SetMethod(method)
	q.SetRequestURI("http://" + host + path)
	q.SetConnectionClose()
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		q.Header.SetContentType("application/json")
		q.SetBody(b)
	}
	if err := client.Do(&q, &p); err != nil {
		return nil, err
	}
	b := append([]byte(nil), p.Body()...)
	if status := p.StatusCode(); status >= 400 {
		f := failure{}
		if json.Unmarshal(b, &f) != nil || f.Error == "" {
			f.Error = fmt.Sprintf("status %d", status)
		}
		return nil, &Refusal{Status: status, Text: f.Error}
	}
	return b, nil
}

// target reads an address.
func target(address string) (network, at string, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok && path != "" {
		return "unix", path, nil
	}
	at = strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/")
	if _, _, err := net.SplitHostPort(at); err != nil {
		return "", "", fmt.Errorf("bad address %q: write unix:/path or host:port", address)
	}
	return "tcp", at, nil
}
