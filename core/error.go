package core

// Side says who is to blame for a failed exchange.
type Side uint8

const (
	SideDownstream Side = iota
	SideUpstream
	SideInternal
)

func (s Side) String() string { return [...]string{"downstream", "upstream", "internal"}[s] }

// Retry says whether a failed attempt may be repeated on another connection or endpoint.
type Retry uint8

const (
	RetryNever     Retry = iota
	RetryUnsent          // nothing of the request was sent: any request may be repeated
	RetryRefused         // the endpoint says that it has not looked at the request: any may be repeated that is still there
	RetryIfReused        // a kept connection broke before a byte came back: an idempotent request may be repeated
	RetryReset           // the connection was lost before the head of an answer was whole: as the retry policy says, as for those below
	RetryTimeout         // the answer did not come in time
	RetryMalformed       // what came is no answer
	RetryAnswered        // the answer has a status that is not passed on as long as there may be another
)

// Error is why an exchange failed. Clients see Status and Reason, or Told, the log sees Detail too. Errors are made once, at
// start: failing is as cheap as succeeding.
type Error struct {
	Status int    // what the client is told; 0: the client has gone, nobody is told
	Reason string // stable code, such as "connect_failed"
	Told   string // the reason that the client is told, where it must not learn which of two it is; "": Reason
	Detail string
	Side   Side
	Retry  Retry
	Close  bool // the downstream connection cannot go on after the answer
	GRPC   int  // the status that a gRPC client is told; 0: what Status means to it
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Detail
}

// told is the reason as the client gets it.
func (e *Error) told() string {
	if e.Told != "" {
		return e.Told
	}
	return e.Reason
}

// BodyError is what an error of a Body's Next means for the exchange: its own if it has a cause to tell, else whoever sent
// the body has gone.
func BodyError(err error) *Error {
	if f, ok := err.(*Error); ok {
		return f
	}
	return ErrClientGone
}

// What the stages of the path may fail with. The parsers have their own list of bad requests.
var (
	ErrClientGone          = &Error{Reason: "client_gone", Close: true}
	ErrClientSlow          = &Error{Reason: "client_slow", Close: true}
	ErrClientCert          = &Error{Status: 403, Reason: "client_cert_required"}
	ErrClientCertDenied    = &Error{Status: 403, Reason: "client_cert_denied"}
	ErrNotFound            = &Error{Status: 404, Reason: "not_found"}
	ErrMethod              = &Error{Status: 405, Reason: "method_not_allowed", Close: true}
	ErrRequestTimeout      = &Error{Status: 408, Reason: "request_timeout", Close: true}
	ErrBodyTooLarge        = &Error{Status: 413, Reason: "body_too_large", Close: true}
	ErrExpectation         = &Error{Status: 417, Reason: "expectation_failed", Close: true}
	ErrClientCertElsewhere = &Error{Status: 421, Reason: "client_cert_required", Detail: "a new connection will be asked for one", Close: true}
	ErrMisdirected         = &Error{Status: 421, Reason: "misdirected_request", Close: true}
	ErrInternal            = &Error{Status: 500, Reason: "internal", Side: SideInternal, Close: true}
	ErrConnectFailed       = &Error{Status: 502, Reason: "connect_failed", Side: SideUpstream, Retry: RetryUnsent}
	ErrHandshakeFailed     = &Error{Status: 502, Reason: "tls_failed", Side: SideUpstream, Retry: RetryUnsent}
	ErrUpstreamReset       = &Error{Status: 502, Reason: "upstream_reset", Side: SideUpstream, Retry: RetryIfReused}
	ErrUpstreamClosed      = &Error{Status: 502, Reason: "upstream_closed", Side: SideUpstream, Retry: RetryIfReused}
	ErrRefused             = &Error{Status: 502, Reason: "upstream_refused", Side: SideUpstream, Retry: RetryRefused}
	ErrBadResponse         = &Error{Status: 502, Reason: "bad_response", Side: SideUpstream, Retry: RetryMalformed}
	ErrAnswerRetried       = &Error{Status: 502, Reason: "answer_retried", Side: SideUpstream, Retry: RetryAnswered}
	ErrNoEndpoint          = &Error{Status: 503, Reason: "no_endpoint", Side: SideUpstream}
	ErrQueueFull           = &Error{Status: 503, Reason: "queue_full", Side: SideUpstream}
	ErrQueueTimeout        = &Error{Status: 503, Reason: "queue_timeout", Side: SideUpstream}
	ErrConnectTimeout      = &Error{Status: 504, Reason: "connect_timeout", Side: SideUpstream, Retry: RetryUnsent}
	ErrTLSTimeout          = &Error{Status: 504, Reason: "tls_timeout", Side: SideUpstream, Retry: RetryUnsent}
	ErrHeaderTimeout       = &Error{Status: 504, Reason: "header_timeout", Side: SideUpstream, Retry: RetryTimeout}
	ErrIdleTimeout         = &Error{Status: 504, Reason: "idle_timeout", Side: SideUpstream, Retry: RetryTimeout}
	ErrPerTryTimeout       = &Error{Status: 504, Reason: "per_try_timeout", Side: SideUpstream, Retry: RetryTimeout}
	ErrTotalTimeout        = &Error{Status: 504, Reason: "total_timeout", Side: SideUpstream}
	ErrTakenSlowly         = &Error{Status: 504, Reason: "total_timeout", Detail: "more of the answer is at hand than the client takes", Side: SideDownstream}
	ErrClientDeadline      = &Error{Status: 504, Reason: "client_deadline", Side: SideUpstream}
	ErrStopping            = &Error{Status: 503, Reason: "stopping", Side: SideInternal, Close: true}
)
