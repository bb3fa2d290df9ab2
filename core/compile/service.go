package compile

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
)

// service is a client of somebody who is asked about requests. It outlives configurations as long as one of them says the same of it, and
// with it the connections that it keeps. Any goroutine may use it.
type service struct {
	timeout   time.Duration
	bodyBytes int64 // that are read of an answer
	transport *http.Transport
	link      *link        // instead, of one that is asked over gRPC
	encrypted *upstreamTLS // nil: the system's authorities
}

const (
	serviceHeadBytes   = 64 << 10
	serviceBodyBytes   = 64 << 10
	serviceIdle        = time.Minute
	serviceIdleMost    = 64
	serviceDrainBytes  = 4 << 10
	serviceConnectMost = 5 * time.Second
)

var errNotAsked = errors.New("an answer that nobody has asked for")

// service gives the client for s: that of c, or the one in force if nothing about it has changed, files included.
func (r *Registry) service(c *Compiled, at config.Pos, name string, s *config.Service) (*service, error) {
	key := fmt.Sprintf("%s %q %d %s", name, s.URL, s.Calls, s.Timeout)
	if s.TLS != nil {
		key += fmt.Sprintf(" %q %s", s.TLS.CA, saysOfTLS(s.TLS))
	}
	if have := c.services[key]; have != nil {
		return have, nil
	}
	now := r.services[key]
	var was *upstreamTLS
	if now != nil {
		was = now.encrypted
	}
	to, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("cannot read the URL: %w", err)
	}
	protocol := "h1"
	if to.Scheme == "grpc" || to.Scheme == "grpcs" {
		protocol = "h2"
	}
	encrypted, err := c.secure(&config.Upstream{Name: name, Pos: at, Protocol: protocol, TLS: s.TLS}, was)
	if err != nil {
		return nil, err
	}
	if now == nil || now.encrypted != encrypted {
		now = newService(s, to, encrypted)
	}
	c.services[key] = now
	return now, nil
}

// newService gives a client of a place, by HTTP or gRPC.
func newService(s *config.Service, to *url.URL, encrypted *upstreamTLS) *service {
	if to.Scheme == "grpc" || to.Scheme == "grpcs" {
		return &service{timeout: s.Timeout, link: newLink(to, encrypted), encrypted: encrypted}
	}
	return newWebService(s, encrypted)
}

// newWebService gives a client of HTTP that looks at no environment, follows no redirect, keeps no cookies and unpacks nothing.
func newWebService(s *config.Service, encrypted *upstreamTLS) *service {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: serviceConnectMost}).DialContext,
		TLSHandshakeTimeout:    serviceConnectMost,
		DisableCompression:     true,
		MaxConnsPerHost:        s.Calls,
		MaxIdleConns:           min(s.Calls, serviceIdleMost),
		MaxIdleConnsPerHost:    min(s.Calls, serviceIdleMost),
		IdleConnTimeout:        serviceIdle,
		MaxResponseHeaderBytes: serviceHeadBytes,
		TLSClientConfig:        &cryptotls.Config{MinVersion: cryptotls.VersionTLS12},
	}
	if encrypted != nil {
		t.TLSClientConfig = encrypted.config
	}
	return &service{timeout: s.Timeout, bodyBytes: serviceBodyBytes, transport: t, encrypted: encrypted}
}

// do makes one request, and reads as much of the answer as is bounded; whole says that this was all. Of an answer that allows, whose body
// nobody wants, only what is short is read, so that the connection can be used again.
func (s *service) do(ctx context.Context, q *http.Request, discard func(status int) bool) (a *http.Response, body []byte, whole bool, err error) {
	a, err = s.transport.RoundTrip(q.WithContext(ctx))
	if err != nil {
		return nil, nil, false, err
	}
	defer a.Body.Close()    //nolint:errcheck // nothing was written
	if a.StatusCode < 200 { // after a 101 the body is the connection, which no deadline of ctx ends
		return nil, nil, false, errNotAsked
	}
	if discard != nil && discard(a.StatusCode) {
		if a.ContentLength >= 0 && a.ContentLength <= serviceDrainBytes {
			_, _ = io.Copy(io.Discard, a.Body)
		}
		return a, nil, true, nil
	}
	body, err = io.ReadAll(io.LimitReader(a.Body, s.bodyBytes+1))
	if err != nil || int64(len(body)) > s.bodyBytes {
		return a, nil, false, nil
	}
	return a, body, true, nil
}

// putServices ends the clients that c has not: what they have under way goes on.
func (r *Registry) putServices(c *Compiled) {
	for key, s := range r.services {
		if c.services[key] != s {
			s.end()
		}
	}
	r.services = c.services
}

// end closes connections that nothing is under way on, and the others when that is over.
func (s *service) end() {
	if s.link != nil {
		s.link.end()
		return
	}
	s.transport.CloseIdleConnections()
}
