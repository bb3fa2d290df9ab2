package compile

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/introspect"
)

// Introspection is a policy that asks the issuer of tokens, with the name that it is counted under.
type Introspection struct {
	Name   string
	Policy *introspect.Policy
}

// introspection makes the policy of kind introspect.
func introspection(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	i := p.Introspect
	s, err := r.service(c, p.Pos, "introspect", &i.Service)
	if err != nil {
		return core.Step{}, err
	}
	is := &issuer{}
	if is.oauthClient, err = newOAuthClient(s, i.URL, i.Client); err != nil {
		return core.Step{}, err
	}
	loops := max(len(r.workers), 1)
	spec := introspect.Spec{Bearer: r.bearer(c, &i.Bearer), TTL: i.TTL, Negative: i.Negative, Most: share(i.Most, loops), Calls: share(i.Calls, loops),
		Allow: i.OnError == "allow"}
	counts := r.introspectCounts[name]
	if counts == nil {
		counts = make([]introspect.Counts, loops)
	}
	c.introspectCounts[name] = counts
	policy := introspect.New(spec, is, c.consumers.directory, counts)
	c.Introspections = append(c.Introspections, Introspection{name, policy})
	return core.Step{Writes: told(&i.Bearer), Request: policy}, nil
}

// issuer is asked about tokens.
type issuer struct {
	oauthClient
	joins joins[introspect.Answer]
}

// Begin prepares one question.
func (i *issuer) Begin(token string) core.Call[introspect.Answer] {
	ctx, cancel := context.WithTimeout(context.Background(), i.timeout)
	return core.Call[introspect.Answer]{Do: func() introspect.Answer { return i.join(ctx, token) }, Cancel: cancel}
}

// join asks, unless another loop does.
func (i *issuer) join(ctx context.Context, token string) introspect.Answer {
	answer, ok := i.joins.do(ctx, token, func() introspect.Answer { return i.ask(ctx, token) })
	answer.Failed = answer.Failed || !ok
	return answer
}

func (i *issuer) ask(ctx context.Context, token string) introspect.Answer {
	failed := introspect.Answer{Failed: true}
	a, body, whole, err := i.post(ctx, url.Values{"token": {token}, "token_type_hint": {"access_token"}})
	if err != nil || a.StatusCode != http.StatusOK || !whole {
		return failed
	}
	claims, ok := core.ReadClaims(body)
	return introspect.Answer{Failed: !ok, Claims: claims}
}
