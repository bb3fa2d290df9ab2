package compile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/forward"
)

// Forward is a policy that asks a service, with the name that it is counted under.
type Forward struct {
	Name   string
	Policy *forward.Policy
}

// forwardAuth makes the policy of kind forward.
func forwardAuth(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	f := p.Forward
	s, err := r.service(c, p.Pos, "forward", &f.Service)
	if err != nil {
		return core.Step{}, err
	}
	loops := max(len(r.workers), 1)
	spec := forward.Spec{Headers: f.Headers, Body: f.Body, TrustForwarded: f.TrustForwarded, Copy: f.Copy, CopyToClient: f.CopyToClient,
		Hide: hidden(f.Hide), Allow: f.OnError == "allow", Calls: share(f.Calls, loops)}
	if f.Method != "same" {
		spec.Method = f.Method
	}
	to, err := url.Parse(f.URL)
	if err != nil {
		return core.Step{}, fmt.Errorf("cannot read the URL: %w", err)
	}
	return r.judged(c, name, spec, f.Cache, &judge{service: s, url: to})
}

// judged makes a policy that asks a service.
func (r *Registry) judged(c *Compiled, name string, spec forward.Spec, k *config.ForwardCache, by forward.Service) (core.Step, error) {
	loops := max(len(r.workers), 1)
	if k != nil {
		spec.Cache = &forward.Cache{PerRequest: k.Per == "request", TTL: k.TTL, Most: share(k.Most, loops)}
		for _, part := range k.Key {
			kind, known := core.ParseKeyKind(part.Kind)
			if !known {
				return core.Step{}, fmt.Errorf("no key is made of %q", part)
			}
			spec.Cache.Key = append(spec.Cache.Key, core.KeyPart{Kind: kind, Name: part.Name})
		}
	}
	counts := r.forwardCounts[name]
	if counts == nil {
		counts = make([]forward.Counts, loops)
	}
	c.forwardCounts[name] = counts
	policy := forward.New(spec, by, counts)
	c.Forwards = append(c.Forwards, Forward{name, policy})
	return core.Step{Writes: spec.Copy, Request: policy, Response: policy}, nil
}

// hidden is where the credentials are that end here.
func hidden(parts []config.KeyPart) (c core.Carrier) {
	for _, p := range parts {
		switch p.Kind {
		case "header":
			c.Headers = append(c.Headers, p.Name)
		case "cookie":
			c.Cookies = append(c.Cookies, p.Name)
		case "query":
			c.Arguments = append(c.Arguments, p.Name)
		}
	}
	return c
}

// share is a loop's part of a number, at least one.
func share(n, loops int) int { return (n + loops - 1) / loops }

// judge asks the service of a policy.
type judge struct {
	*service
	url *url.URL
}

// Begin prepares one question.
func (j *judge) Begin(q *forward.Query) core.Call[forward.Answer] {
	ctx, cancel := context.WithTimeout(context.Background(), j.timeout)
	return core.Call[forward.Answer]{Do: func() forward.Answer { return j.ask(ctx, q) }, Cancel: cancel}
}

func (j *judge) ask(ctx context.Context, q *forward.Query) forward.Answer {
	r := &http.Request{Method: q.Method, URL: j.url, Host: j.url.Host, Header: http.Header{"User-Agent": nil}, ProtoMajor: 1, ProtoMinor: 1}
	for _, l := range q.Lines {
		r.Header.Add(l.Name, l.Value)
	}
	if len(q.Body) > 0 {
		r.ContentLength = int64(len(q.Body))
		r.Body = io.NopCloser(bytes.NewReader(q.Body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(q.Body)), nil }
	}
	a, body, whole, err := j.do(ctx, r, func(status int) bool { return status >= 200 && status < 300 })
	if err != nil {
		return forward.Answer{Failed: true}
	}
	answer := forward.Answer{Status: a.StatusCode, Body: string(body), Whole: whole}
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		for _, value := range a.Header[name] {
			answer.Lines = append(answer.Lines, forward.Line{Name: name, Value: value})
		}
	}
	return answer
}
