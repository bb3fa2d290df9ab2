package compile

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/tls/acme"
)

const (
	// maxChallenged is how many requests at once may have the storage looked into. Anybody can send them.
	maxChallenged = 64
	// challengePatience bounds that look.
	challengePatience = 5 * time.Second
)

// challenged answers the challenge http-01 of the issuers, RFC 8555, section 8.3, before a request is redirected or routed.
// What is not of a challenge under way goes on as if this were not there.
type challenged struct {
	issuers []*acme.Issuer
	looking *atomic.Int64
}

// challenges gives the step of a listener without TLS; ok: there is one.
func (c *Compiled) challenges() (step core.Step, ok bool) {
	p := challenged{looking: &atomic.Int64{}}
	for _, i := range c.issuers {
		if i.http01 {
			p.issuers = append(p.issuers, i.issuer)
		}
	}
	return core.Step{Name: "acme", Request: p}, len(p.issuers) > 0
}

// OnRequest looks at the path alone for all but challenges. For these it waits, in Await: a map with a lock is looked into, and
// for what another process on the same storage began, a file. It is no BlockingPolicy, since then every request of the
// listener would be awaited.
func (p challenged) OnRequest(x *core.Exchange) core.Verdict {
	m := &x.Request
	if len(m.Path) <= len(acme.ChallengePath) || string(m.Path[:len(acme.ChallengePath)]) != acme.ChallengePath {
		return core.Continue
	}
	if m.Method != core.MethodGet && m.Method != core.MethodHead || m.Query != nil {
		return core.Continue
	}
	if p.looking.Add(1) > maxChallenged {
		p.looking.Add(-1)
		return core.Continue
	}
	defer p.looking.Add(-1)
	host, path := string(core.HostOf(m.Host())), string(m.Path)
	body := ""
	x.Worker.Loop.Await(func() { body = p.find(host, path) })
	if body == "" {
		return core.Continue
	}
	x.Answer(200, "text/plain", body)
	return core.Respond
}

func (p challenged) find(host, path string) string {
	ctx, cancel := context.WithTimeout(context.Background(), challengePatience)
	defer cancel()
	for _, i := range p.issuers {
		if body, ok := i.StoredChallenge(ctx, host, path); ok {
			return body
		}
	}
	return ""
}
