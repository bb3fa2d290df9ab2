// Package config is the grammar of sluice.yaml: what may be written, its defaults, and where each value stands.
//
// Load reads a file and what it includes, and returns either a Config in which every reference, unit and bound is valid,
// or all the problems found, each with file, line and column. A Config is plain data: it opens nothing and resolves no name.
package config

import (
	"net/netip"
	"regexp"
	"time"
)

// Pos is where a value was written.
type Pos struct {
	File         string
	Line, Column int32 // both from 1; narrow, for there may be hundreds of thousands
}

// posAt is a place in a file, whose lines and columns its bounded size keeps within 32 bits.
func posAt(file string, line, column int) Pos {
	return Pos{File: file, Line: int32(line), Column: int32(column)}
}

// Config is one valid configuration, defaults filled in.
type Config struct {
	Loops     int   // event loops; 0, written auto: one for each processor that the process runs on, under a cgroup's quota of time one fewer than it makes
	Drain     Drain // the end in good order; 30s
	Log       Log
	AccessLog AccessLog
	Admin     Admin
	Tuning    Tuning
	Secrets   Secrets
	Cluster   *Cluster   // nil: this node is alone
	Identity  *Identity  // nil: upstreams learn the name of a consumer, as X-Consumer-Name
	Listeners []Listener // in the order written, as are Upstreams and Routes
	Upstreams []Upstream
	Policies  []Policy
	Consumers []Consumer
	Routes    []Route

	ConsumersFile ConsumersFile
	Resolvers     []netip.AddrPort // name servers for the endpoints of all upstreams; none: those of resolv.conf
}

// Log is the error log.
type Log struct {
	Level  string // debug, info, warn or error; info
	Format string // text or json; text
}

// AccessLog says what is written of each exchange.
type AccessLog struct {
	To     string  // "" (off), "stdout", "stderr", a file's absolute path, "syslog:unix:/dev/log" or "syslog:udp:127.0.0.1:514"
	Sample float64 // share that is written of the exchanges below 500 that have not failed or been refused, 0..1; 1
	Queue  int     // lines that wait for the writer before lines are dropped and counted; 65536
	// ByStatus are shares that stand above Sample and those of routes: in the order of statuses, and zero behind the last.
	ByStatus [maxStatusShares]StatusShare
}

// StatusShare is the share of the exchanges with a status that is written.
type StatusShare struct {
	Status int // a status, 100..599, or the first digit of a class, 1..5
	Share  float64
}

// Admin is the run-time API.
type Admin struct {
	Bind Bind // unix:/run/sluice/admin.sock, mode 0600; the zero Bind where the file says `admin: off`
}

// Bind is an address to listen on: TCP or, with Path, a unix socket.
type Bind struct {
	Addr netip.AddrPort // ":80" is [::]:80, which takes IPv4 too
	Path string         // of a unix socket; absolute
	Pos  Pos
}

// Listener accepts downstream connections.
type Listener struct {
	Name          string
	Pos           Pos
	Binds         []Bind
	Timeouts      ListenerTimeouts
	Limits        ListenerLimits
	RealIP        *RealIP        // nil: the client is the peer
	ProxyProtocol *ProxyProtocol // nil: no PROXY header is read
	Redirect      string         // a listener's name: every request is redirected to that listener's scheme and port
	HalfClose     bool           // a client that closes its sending side is still there: the upstream work goes on
	MergeSlashes  bool           // "//" in a path is read and forwarded as "/"

	RequestTimeout string // header: X-Request-Timeout shortens the time, and the upstream is told what is left; ignore

	Forward   Forward
	Protocols Protocols
	HTTP2     ListenerHTTP2
	TLS       *TLS // nil: not encrypted
	Socket    Socket
}

// Protocols are what a listener's clients may speak.
type Protocols struct {
	H1  bool // HTTP/1.1 and 1.0; true
	H2  bool // HTTP/2, agreed on in the TLS handshake; true with tls
	H2C bool // HTTP/2 without TLS, by prior knowledge
}

// ListenerHTTP2 is how clients use their HTTP/2 connections. A connection keeps the number of streams and the age of the
// configuration that it was made under.
type ListenerHTTP2 struct {
	Streams          int           // open at once on one connection, 1..1000; 128
	KeepAlive        time.Duration // of silence while streams are open, before the client is asked for a sign of life; 0: off
	KeepAliveTimeout time.Duration // for that sign, after which the connection is given up; 10s
	MaxAge           time.Duration // of a connection, more or less by a tenth; then it takes no new streams; 0: no limit
	MaxAgeGrace      time.Duration // for the streams that are open then, after which they are cut off; 30s
}

// ListenerTimeouts bound how long a client may take.
type ListenerTimeouts struct {
	Header time.Duration // first byte of a request to the end of its head; 10s
	Idle   time.Duration // between requests; 75s
	Body   time.Duration // between reads of a request body; 60s
	Write  time.Duration // between writes of a response; 60s
}

// ListenerLimits bound what a client may send or hold.
type ListenerLimits struct {
	HeaderBytes      int   // request line and header section; 32KiB, 1KiB..256KiB, which a loop's large buffers hold
	Headers          int   // field lines; 100, 1..1000
	BodyBytes        int64 // 0: no limit
	Connections      int   // open at once on this listener; 0: no limit
	ConnectionsPerIP int   // 0: no limit
	// ConnectionRatePerIP is how many connections a client may make; its zero: as many as it likes.
	ConnectionRatePerIP Rate
	MinRate             MinRate
}

// RealIP says whom to believe about the client's address.
type RealIP struct {
	Header  string         // X-Forwarded-For (walked from the right over trusted addresses), Forwarded or X-Real-IP
	Trusted []netip.Prefix // peers whose header is believed
	Depth   int            // > 0: take the Depth-th address from the right instead of the first that is not trusted
}

// ProxyProtocol makes a PROXY header, version 1 or 2, mandatory on connections from these peers; from others it is refused.
type ProxyProtocol struct {
	From []netip.Prefix
}

// Forward is what the upstream is told of the client.
type Forward struct {
	XForwarded bool   // X-Forwarded-For, -Proto and -Host; true
	Forwarded  bool   // RFC 7239; false
	Via        string // pseudonym for Via in both directions; "" sends none
	RequestID  string // header that carries the request's id: kept from a trusted peer, else made; X-Request-ID; "" where the file says off
	ClientCert bool   // Client-Cert (RFC 9440): the verified certificate that the client showed; false
	XFCC       bool   // X-Forwarded-Client-Cert, as Envoy writes it: its fingerprint, subject and names; false
}

// Upstream is a group of endpoints that serve the same.
type Upstream struct {
	Name        string
	Pos         Pos
	Endpoints   []Endpoint
	Files       []EndpointsFile // that hold more of them
	Balance     Balance
	Pool        Pool
	Timeouts    UpstreamTimeouts
	Resolve     Resolve
	ReplayBytes int          // a request body up to this size can be sent again to a second connection; 16KiB, at most 64KiB
	TLS         *UpstreamTLS // nil: not encrypted
	Protocol    string       // h1, h2 (with TLS) or h2c (without); h1
	HTTP2       UpstreamHTTP2
	Proxy       string    // version of the PROXY header that each connection begins with: v1, v2; "": none
	Health      *Health   // nil: endpoints are not checked
	Outlier     *Outlier  // nil: endpoints are not ejected for what requests came to
	Breaker     *Breaker  // nil: none
	Adaptive    *Adaptive // nil: as many requests at once as may be
	Retry       Retry
	RetryBudget RetryBudget // for the retries of all routes
	Hedge       Hedge
	Socket      Socket     // without what is of listeners
	Authorize   *Authorize // nil: requests keep the client's Authorization
}

// UpstreamHTTP2 is how HTTP/2 connections to an upstream are used.
type UpstreamHTTP2 struct {
	Streams          int           // open at once on one connection, 1..1000; 100. The upstream may allow less
	KeepAlive        time.Duration // of silence while streams are open, before it is asked for a sign of life; 30s; 0: off
	KeepAliveTimeout time.Duration // for that sign; 10s
}

// Endpoint is one address of an upstream; a name may stand for several.
type Endpoint struct {
	Address  string            // host:port, [v6]:port, unix:/path, or srv:name, whose SRV records have ports and weights
	Weight   int               // 0..1000; 1. With 0 it gets nothing
	Priority int               // 0..127, 0 is used first; 0. SRV records have theirs from there on
	Zone     string            // where it stands; ""
	Labels   map[string]string // what the subsets of routes go by; at most 16. Never changed
	Pos      Pos
}

// Pool bounds the connections to each endpoint of an upstream.
type Pool struct {
	MaxConnections        int           // per endpoint; 0: no limit
	MaxPending            int           // requests that wait for a connection, per upstream; 1024
	MaxRequests           int           // under way at once, per upstream; 0: no limit
	MaxRetries            int           // attempts under way that follow on others, per upstream; 0: no limit
	QueueTimeout          time.Duration // 1s
	IdlePerLoop           int           // kept per endpoint by each loop; 256
	IdleTimeout           time.Duration // 60s
	RequestsPerConnection int           // 0: no limit
}

// UpstreamTimeouts bound how long an endpoint may take.
type UpstreamTimeouts struct {
	Connect time.Duration // 5s
	TLS     time.Duration // its handshake; 5s
	Header  time.Duration // end of the request to the end of the response head; 30s
	PerTry  time.Duration // one attempt up to the response head, where retry has none; 0: no limit
	Idle    time.Duration // between reads of a response body; 60s
	Total   time.Duration // whole request; 0: no limit

	Tunnel     time.Duration // without a byte either way through a tunnel, such as a WebSocket; 5m
	TunnelLife time.Duration // of a tunnel; 0: no limit

	perTryAt Pos
}

// Route says what is done with the requests it matches.
type Route struct {
	Name     string // written as `name:`, else the text of the first match; unique
	Pos      Pos
	Matches  []Match // any of them
	Priority int     // higher wins over every other rule; 0

	// The action, exactly one of:
	To       []Target // with Passthrough: where connections go whose TLS is not ended here
	Respond  *Respond
	Redirect *Redirect

	// Passthrough: the matches are of server names, on listeners with TLS, and the route has no requests.
	Passthrough bool

	// How exchanges are spread, with To.
	SplitBy []BalanceKey // the exchanges of one key go to one upstream; none: each goes where its turn is
	Canary  *Canary      // nil: there is none
	Mirror  *Mirror      // nil: there is none

	// How the request is changed for the upstream; at most one of the three paths.
	StripPrefix   string
	ReplacePrefix *ReplacePrefix
	Rewrite       *Rewrite
	Host          string // preserve, upstream or a host name

	Timeout  time.Duration  // whole exchange; 0: the upstream's
	Timeouts *RouteTimeouts // nil: the upstream's
	Retry    *Retry         // nil: the upstream's
	Hedge    *Hedge         // nil: the upstream's

	RequestTimeout string // header: X-Request-Timeout shortens the time, and the upstream is told what is left; ignore; "": the listener's

	ClientCert *ClientCert // nil: requests need none
	Use        []Use       // policies, in the order in which requests meet them; at most 16
	BodyBytes  *int64      // instead of the listener's limit
	LogSample  *float64    // instead of AccessLog.Sample
	Breaker    *Breaker    // nil: none of its own
}

// Match is a set of conditions that must all hold.
type Match struct {
	Pos     Pos
	Text    string   // as written in the short form, or its equivalent
	Methods []string // empty: any
	Host    Host
	Path    Path
	Further *Conditions // nil: none
}

// Conditions are those of a match that few have. They stand apart because there may be 100,000 matches.
type Conditions struct {
	Listeners    []string // empty: any
	Headers      []FieldMatch
	Query        []FieldMatch
	Cookies      []FieldMatch
	ContentTypes []string // media types without parameters, lower case; "text/*" is allowed
	Clients      []netip.Prefix
}

// Host is a host condition: any host where Name is "".
type Host struct {
	Name     string // lower case, without port
	Wildcard bool   // *.Name: one or more labels before it
}

// PathKind is the way a path condition is written.
type PathKind uint8

const (
	PathAny    PathKind = iota
	PathExact           // /a/{id}/c too: a {name} takes one segment
	PathPrefix          // /a/* : /a and everything below it
	PathRegex           // RE2 for the whole path; Regex is Value as written, to which the router adds anchors
)

// Path is a path condition. It applies to the normalised path.
type Path struct {
	Kind  PathKind
	Value string // without the trailing /* of a prefix
	Regex *regexp.Regexp
}

// FieldOp is how a header, query argument or cookie is compared.
type FieldOp uint8

const (
	FieldExact FieldOp = iota
	FieldPresent
	FieldAbsent
	FieldRegex // unanchored, RE2
)

// FieldMatch is a condition on one header, query argument or cookie.
type FieldMatch struct {
	Name  string // of a header: lower case
	Op    FieldOp
	Value string
	Regex *regexp.Regexp
}

// Target is one upstream of a route's `to:`.
type Target struct {
	Upstream string
	Weight   int               // 0..1000; 1
	Subset   map[string]string // labels that its endpoints must have; nil: all endpoints
	OrAny    bool              // any endpoint takes the place of a subset none of whose endpoints may be used; else none does
	Pos      Pos
}

// Respond answers without an upstream.
type Respond struct {
	Status  int    // 200..599; 200
	Body    Secret // at most 1 MiB; may be given as env:NAME or file:/path
	Headers []Header
	Keys    bool // the keys by which the gateway's tokens are verified, instead of the above
}

// Header is one field line to send. The value may be given as env:NAME or file:/path.
type Header struct {
	Name  string
	Value Secret
}

// Redirect answers with a Location. To may hold {scheme}, {host}, {path}, {query} and the route's {param}s.
type Redirect struct {
	To     string
	Status int // 301, 302, 303, 307 or 308; 302
}

// ReplacePrefix puts With in the place of Prefix at the start of the path.
type ReplacePrefix struct{ Prefix, With string }

// Rewrite replaces the path where Pattern matches; To may use $1 and ${name}.
type Rewrite struct {
	Pattern *regexp.Regexp
	To      string
}
