package jwt

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// step takes one request after another through all that the policy does with a token that was verified before.
type step struct {
	policy *Policy
	x      *core.Exchange
	bearer []byte
}

// newStep gives a policy with everything on that a request can meet, and an RS256 token among 2,000 others that its loop knows.
func newStep(tb testing.TB) *step {
	tb.Helper()
	with, d, text, _, _ := signed(tb)
	l, err := loop.New(loop.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Stop() })
	spec := with.spec
	spec.Carrier = core.Carrier{Headers: []string{"Authorization"}, Scheme: "Bearer"}
	spec.Hide, spec.Revoked, spec.Keep = true, &core.Revocations{}, []string{"scope"}
	spec.Headers = []core.ClaimHeader{{Header: "X-User", Claim: "sub"}, {Header: "X-Scope", Claim: "scope"}}
	until := time.Unix(0, l.Time()).Add(time.Hour)
	spec.Revoked.Switch(&core.Revoked{IDs: map[string]time.Time{"other": until}, Subjects: map[string]core.RevokedSubject{"other": {At: until, Until: until}}})
	p := New(spec, with.keys, core.NewConsumers(d), 1)
	c, keys := &p.caches[0], p.keys.Current()
	g, _, failed := p.verify(text, keys, d, time.Unix(0, l.Time()))
	if failed != nil {
		tb.Fatal(failed)
	}
	g.until = until.UnixNano()
	c.find(nil, keys, d, l.Time())
	for i := range 2000 {
		c.put(&grant{Grant: g.Grant, token: longToken(i), until: g.until})
	}
	c.put(g)
	return &step{p, core.NewGateway(&core.Snapshot{}, nil).NewWorker(l).Begin(), []byte("Bearer " + text)}
}

// arrive makes the request, as a browser sends it.
func (s *step) arrive() {
	s.x.Request.Reset()
	s.x.Consumer, s.x.Claims = nil, nil
	for _, name := range [...]string{"Host", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Cache-Control"} {
		s.x.Request.AddName(name, s.bearer[:16])
	}
	s.x.Request.AddName("Authorization", s.bearer)
}

func (s *step) right(tb testing.TB, v core.Verdict) {
	user, _ := s.x.Request.Lookup("X-User")
	if v != core.Continue || s.x.Consumer == nil || s.x.Claims == nil || string(user) != "user" || s.x.Request.Has(core.FieldAuthorization) {
		tb.Fatalf("%v, %v, %v, %q", v, s.x.Err, s.x.Consumer, user)
	}
}

func TestStepAllocs(t *testing.T) {
	s := newStep(t)
	s.arrive()
	s.policy.OnRequest(s.x)
	if n := testing.AllocsPerRun(200, func() {
		s.arrive()
		s.right(t, s.policy.OnRequest(s.x))
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkStep is the whole of OnRequest for a token that was verified before: finding it in the request, the revocations, whom it names, what
// the upstream is told, and hiding it. BenchmarkArrive is the part of it that makes the request, which is no work of the policy's.
func BenchmarkStep(b *testing.B) {
	s := newStep(b)
	b.ReportAllocs()
	for b.Loop() {
		s.arrive()
		s.right(b, s.policy.OnRequest(s.x))
	}
}

func BenchmarkArrive(b *testing.B) {
	s := newStep(b)
	b.ReportAllocs()
	for b.Loop() {
		s.arrive()
	}
}
