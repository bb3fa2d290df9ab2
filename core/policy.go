package core

// Verdict is what a policy says of an exchange.
type Verdict uint8

const (
	Continue Verdict = iota
	Respond          // the policy has made the answer: x.Answer or x.Fail was called
)

// RequestPolicy looks at a request before it is answered. It runs on the loop: computation on our own code that never locks or
// blocks. It may park the exchange's task, by Exchange.Delay or Calls.Ask, while the loop serves others. Whatever might block or burn
// CPU goes into a BlockingPolicy.
type RequestPolicy interface {
	OnRequest(x *Exchange) Verdict
}

// BlockingPolicy may block or burn CPU: the chain runs it in Await, on a goroutine of its own, while the loop serves others.
type BlockingPolicy interface {
	OnRequestBlocking(x *Exchange) Verdict
}

// ResponsePolicy looks at a response before it is sent. It runs on the loop.
type ResponsePolicy interface {
	OnResponse(x *Exchange)
}

// EndPolicy is told when the exchange is over, however it went: the answer has been sent or given up, bodies are not read any
// more. It runs on the loop, also after a panic, and must not wait.
type EndPolicy interface {
	OnEnd(x *Exchange)
}

// Step is one policy at its place in a chain: one of Request and Blocking, or neither, and Response and End or not.
type Step struct {
	Name     string
	Writes   []string // fields of the request that are the policy's alone to write: no trailer brings them
	Request  RequestPolicy
	Blocking BlockingPolicy
	Response ResponsePolicy
	End      EndPolicy
}

// MaxChain bounds the steps of a chain.
const MaxChain = 24

// progress is how far an exchange has come in its chain, and what the policies keep on the way.
type progress struct {
	reached int   // steps that were reached
	step    int   // that runs now
	keeps   int   // of kept, that may hold something
	kept    []any // by step; made when it is first wanted, and then the exchange's
}

// Keep holds v for the policy of a route that runs now, until the exchange is over.
func (x *Exchange) Keep(v any) {
	p := &x.progress
	if p.kept == nil {
		p.kept = make([]any, MaxChain)
	}
	p.kept[p.step] = v
	p.keeps = max(p.keeps, p.step+1)
}

// Kept is what the policy that runs now has kept of this exchange; nil: nothing.
func (x *Exchange) Kept() any {
	if p := &x.progress; p.step < p.keeps {
		return p.kept[p.step]
	}
	return nil
}

func (p *progress) reset() {
	clear(p.kept[:p.keeps])
	p.reached, p.keeps = 0, 0
}

// Chain is the policies of a route in the order in which requests meet them. Responses meet those that were reached in
// reverse.
type Chain []Step

func (c Chain) request(x *Exchange) Verdict {
	x.progress.reached = 0
	for i := range c {
		x.progress.reached, x.progress.step = i+1, i
		v := Continue
		switch s := &c[i]; {
		case s.Request != nil:
			v = s.Request.OnRequest(x)
		case s.Blocking != nil:
			v = await(s.Blocking, x)
		}
		if v != Continue {
			return v
		}
	}
	return Continue
}

// await runs a policy that may block while the loop serves others.
func await(p BlockingPolicy, x *Exchange) (v Verdict) {
	x.Worker.Loop.Await(func() { v = p.OnRequestBlocking(x) })
	return v
}

func (c Chain) response(x *Exchange) {
	for i := x.progress.reached - 1; i >= 0; i-- {
		if p := c[i].Response; p != nil {
			x.progress.step = i
			p.OnResponse(x)
		}
	}
}

// end tells the policies that were reached that the exchange is over.
func (c Chain) end(x *Exchange) {
	for i := x.progress.reached - 1; i >= 0; i-- {
		if p := c[i].End; p != nil {
			x.progress.step = i
			p.OnEnd(x)
		}
	}
	x.progress.reset()
}
