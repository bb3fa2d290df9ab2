package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

const (
	alpnH1 = "http/1.1"
	alpnH2 = "h2"
)

// wire is how clients speak to a proxy; the zero value is HTTP/1.1 in clear text.
type wire struct {
	tls bool
	h2  bool // with tls agreed on by ALPN, else by prior knowledge
}

func (w wire) scheme() string {
	if w.tls {
		return "https"
	}
	return "http"
}

// protocol is the name in ALPN.
func (w wire) protocol() string {
	if w.h2 {
		return alpnH2
	}
	return alpnH1
}

func (w wire) url(address, path string) string { return w.scheme() + "://" + address + path }

// client makes single requests, each on a connection of its own; the zero value speaks HTTP/1.1 in clear text.
type client struct {
	wire wire
	leaf []byte // the certificate that servers must have

	calls bool   // with a status after each answer
	token string // that is shown; "": none
}

func (c client) transport() *http.Transport {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Protocols: new(http.Protocols)}
	switch {
	case c.wire.h2 && c.wire.tls:
		transport.Protocols.SetHTTP2(true)
	case c.wire.h2:
		transport.Protocols.SetUnencryptedHTTP2(true)
	default:
		transport.Protocols.SetHTTP1(true)
	}
	if c.wire.tls {
		transport.TLSClientConfig = c.wire.clientConfig(c.leaf)
	}
	return transport
}

// fetch makes one request and reads at most limit bytes of the answer.
func (c client) fetch(ctx context.Context, method, address, path string, body []byte, limit int64) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	url := c.wire.url(address, path)
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("cannot make request: %w", err)
	}
	request.Header.Set("X-Forwarded-For", clientForward)
	if c.wire.tls {
		request.Host = siteName
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.calls {
		for name, value := range callFields {
			request.Header.Set(name, value)
		}
	}
	response, err := c.transport().RoundTrip(request)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot get %q: %w", url, err)
	}
	defer response.Body.Close() //nolint:errcheck // it is read as far as it matters
	if h2 := response.ProtoMajor == 2; h2 != c.wire.h2 || (response.TLS != nil) != c.wire.tls {
		return 0, nil, fmt.Errorf("wrong work: %q was answered in %s", url, response.Proto)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, limit))
	if err != nil {
		return 0, nil, fmt.Errorf("cannot read answer of %q: %w", url, err)
	}
	if status := response.Trailer.Get("Grpc-Status"); c.calls && status != "0" {
		return 0, nil, fmt.Errorf("wrong work: %q was answered with the status %q of a call", url, status)
	}
	return response.StatusCode, answer, nil
}
