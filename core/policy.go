package core

// Verdict is what a policy says of an exchange.
type Verdict uint8

const (
	Continue Verdict = iota
	Respond          // the policy has made the answer: x.Answer or x.Fail was called
)

// RequestPolicy looks at a request before it is answered. It runs on the loop: pure computation on our own code that
// neither locks nor waits. Whatever might goes into a BlockingPolicy.
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

// Step is one policy at its place in a chain: one of Request and Blocking, or neither, and Response or not.
type Step struct {
	Name     string
	Request  RequestPolicy
	Blocking BlockingPolicy
	Response ResponsePolicy
}

// Chain is the policies of a route in the order in which requests meet them. Responses meet those that were reached in
// reverse.
type Chain []Step

func (c Chain) request(x *Exchange) Verdict {
	x.reached = 0
	for i := range c {
		x.reached = i + 1
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
	for i := x.reached - 1; i >= 0; i-- {
		if p := c[i].Response; p != nil {
			p.OnResponse(x)
		}
	}
}
