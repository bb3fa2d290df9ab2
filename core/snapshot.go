package core

import "time"

// Snapshot is one whole configuration, compiled. It is immutable and lives as long as an exchange that has loaded it.
type Snapshot struct {
	Generation int
	Router     Router
	Routes     []*Route
	Listeners  []*Listener
	Identity   *IdentityFields // nil: upstreams learn a consumer's name, as X-Consumer-Name
}

// Router finds the route of a request.
type Router interface {
	// Match gives the most specific route whose conditions x meets, nil when there is none, and fills x.Params.
	Match(x *Exchange) *Route
}

// Route says what is done with the requests that it matches. Immutable.
type Route struct {
	Name       string
	Metric     int // index of its counters, the same over reloads as long as the name is
	Chain      Chain
	Action     Action
	BodyLimit  int64       // -1: the listener's; 0: none
	LogSample  float64     // -1: the access log's own
	ClientCert *ClientCert // nil: none is asked for
	Connect    bool        // it names the method CONNECT: a tunnel is wanted
	Upstream   string      // by name, of a route that has one; "": none, or several
}

// Action answers an exchange: it leaves the answer in x.Response or fails it.
type Action interface {
	Answer(x *Exchange)
}

// Listener is a listener's settings as its connections need them. Immutable; a reload puts another in its place.
type Listener struct {
	Name   string
	Metric int
	Scheme string // http or https
	Port   uint16 // 0 for a unix socket

	HeaderTimeout, IdleTimeout, BodyTimeout, WriteTimeout time.Duration

	HeaderBytes, Headers          int
	BodyBytes                     int64
	Connections, ConnectionsPerIP int
	MinRate                       MinRate

	HalfClose bool
	// RequestTimeout: X-Request-Timeout shortens the time of requests, unless their route says otherwise.
	RequestTimeout bool
	MergeSlashes   bool
	Before         Chain // runs before routing
	Forward        Forward
	HTTP2          HTTP2
	Names          Names // of its TLS as it is now; nil: not encrypted, or passed through
}

// HTTP2 is how the clients of a listener use their HTTP/2 connections. Of a connection that is open only the times of KeepAlive
// follow a change of the configuration.
type HTTP2 struct {
	Streams                     int           // open at once on one connection; 0: 128
	KeepAlive, KeepAliveTimeout time.Duration // silence with streams open before the client is asked whether it is there, and the time to say so; 0: it is not
	MaxAge, MaxAgeGrace         time.Duration // of a connection, and then of the streams that are open; 0: no limit
}

// Forward is what the upstream is told of the client.
type Forward struct {
	XForwarded bool
	Forwarded  bool
	Via        string
	RequestID  string // name of the header; "": none
	ClientCert bool   // Client-Cert (RFC 9440): what the client showed in the handshake, and nothing that it says itself
	XFCC       bool   // X-Forwarded-Client-Cert, likewise
}
