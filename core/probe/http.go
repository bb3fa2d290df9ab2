package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
)

// HTTP is a request whose answer must have one of the statuses, and a body in whose first MaxAnswer bytes Body has a match. The body
// must end, or reach MaxAnswer, within the time of the probe. Redirects are answers like others.
type HTTP struct {
	Method   string
	Path     string      // with a query, if any
	Host     string      // "": the endpoint's
	Fields   http.Header // sent as they stand
	Statuses []StatusRange
	Body     *regexp.Regexp // nil: whatever
}

// StatusRange is from Low to High, both included.
type StatusRange struct{ Low, High int }

const userAgent = "sluice-check"

func (q *Question) askHTTP(ctx context.Context, conn net.Conn, e *Endpoint) *Failure {
	h := q.HTTP
	request, err := http.NewRequestWithContext(ctx, h.Method, q.scheme()+"://"+placeholder+h.Path, nil)
	if err != nil {
		return wrong("cannot make request: %v", err)
	}
	request.Host = h.Host
	if request.Host == "" {
		request.Host = e.Host
	}
	request.Header = h.Fields.Clone()
	if request.Header == nil {
		request.Header = http.Header{}
	}
	if request.Header.Values("User-Agent") == nil {
		request.Header.Set("User-Agent", userAgent)
	}
	response, done, failure := q.exchange(ctx, conn, request, q.HTTP2)
	if failure != nil {
		return failure
	}
	defer done()
	status := response.StatusCode
	if !slices.ContainsFunc(h.Statuses, func(r StatusRange) bool { return r.Low <= status && status <= r.High }) {
		return wrong("status %d", status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer))
	switch {
	case err != nil:
		return failed(ctx, "body", err)
	case h.Body != nil && !h.Body.Match(body):
		return wrong("status %d, but the body does not match", status)
	}
	return nil
}

// placeholder stands for the endpoint in a URL: the connection is there, and the Host field says whom it is for.
const placeholder = "endpoint"

func (q *Question) scheme() string {
	if q.TLS != nil {
		return "https"
	}
	return "http"
}

// exchange sends one request over conn. done must be called when the answer has been read.
func (q *Question) exchange(ctx context.Context, conn net.Conn, request *http.Request, http2 bool) (*http.Response, func(), *Failure) {
	given := false
	give := func(context.Context, string, string) (net.Conn, error) {
		if given {
			return nil, errors.New("the endpoint wants to be asked again")
		}
		given = true
		return conn, nil
	}
	protocols := &http.Protocols{}
	switch {
	case !http2:
		protocols.SetHTTP1(true)
	case q.TLS != nil:
		protocols.SetHTTP2(true)
	default:
		protocols.SetUnencryptedHTTP2(true)
	}
	transport := &http.Transport{DialContext: give, DialTLSContext: give, Protocols: protocols, DisableKeepAlives: true, DisableCompression: true,
		MaxResponseHeaderBytes: MaxAnswer}
	response, err := transport.RoundTrip(request) // no redirects, no cookies, no proxy of the environment
	if err != nil {
		transport.CloseIdleConnections()
		return nil, nil, failed(ctx, "answer", err)
	}
	done := func() {
		_ = response.Body.Close()
		transport.CloseIdleConnections()
	}
	if http2 && response.ProtoMajor != 2 {
		done()
		return nil, nil, wrong("the endpoint does not speak HTTP/2")
	}
	return response, done, nil
}
