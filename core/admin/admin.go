// Package admin is the run-time API: what the gateway does now, in JSON and Prometheus text, and the few things that can
// be told to it while it runs. It is served by fasthttp beside the data path, on a unix socket that its owner alone may open,
// or on a loopback address. sluice ctl speaks it, through Client.
//
//	GET  /healthz    200 as long as the process answers
//	GET  /readyz     200 when it takes requests, else 503 with the reason
//	GET  /metrics    Prometheus text
//	GET  /status     Status
//	GET  /config     the configuration in force as YAML, secrets hidden
//	GET  /routes     []RouteStatus
//	PUT  /routes     SetWeights; 200 with the RouteStatus that results
//	GET  /canaries   []CanaryStatus
//	PUT  /canaries   ChangeCanary; 200 with the CanaryStatus that results
//	GET  /upstreams  []UpstreamStatus
//	PUT  /upstreams  SetEndpoints; 200 with the UpstreamStatus that results
//	GET  /certs      []CertificateStatus
//	GET  /limits     []LimitStatus
//	GET  /limit      []KeyStatus of ?policy=NAME&key=VALUE..., one value for each part of the key
//	DELETE /limit    makes that key one of which nothing is taken; 200
//	GET  /jwks       []KeysStatus
//	GET  /signing-keys []SigningKeyStatus
//	GET  /.well-known/jwks.json  the keys that verify the tokens of upstreams, as RFC 7517 has it; 404 where none are signed
//	GET  /tokens     []RevocationStatus
//	PUT  /tokens     ChangeTokens; 200
//	GET  /sessions   []LoginsStatus
//	DELETE /sessions ends the session with the id of ?who=, or all of that subject; 200 with Revoked
//	GET  /log-level  LogLevel
//	PUT  /log-level  SetLogLevel; 200 with the LogLevel that results
//	POST /reload     202 when begun; with ?wait=true 200 when applied, 422 with the reason when refused
//	POST /upgrade    likewise, for a binary that takes this process's place; ?binary=PATH, over a unix socket only, names another;
//	                 ?hurry=true first ends the tunnels of the process before, if it still has some, and waits for its end
//	GET  /debug/pprof/      what profiles there are
//	GET  /debug/pprof/NAME  that profile, for go tool pprof; profile and trace take ?seconds=, others ?debug=
//
// Every other answer is {"error": "..."} with a status of 400 or more.
package admin

import (
	"io"
	"time"

	"github.com/sluice-gateway/sluice/tuning"
)

// Source is the gateway as this package knows it. Every function must be set, and be safe to call from any goroutine,
// several at once; Reload and Upgrade alone are called by one at a time.
type Source struct {
	Status     func() Status
	Config     func() []byte // YAML, without secrets
	Routes     func() []RouteStatus
	Upstreams  func() []UpstreamStatus
	Certs      func() []CertificateStatus
	Limits     func() []LimitStatus
	Limit      func(policy string, key []string) ([]KeyStatus, error)
	ResetLimit func(policy string, key []string) error
	Keys       func() []KeysStatus
	// SigningKeys are those of tokens for upstreams; IdentityKeys the public part of them. contentType "": there are none.
	SigningKeys  func() []SigningKeyStatus
	IdentityKeys func() (set, contentType, cacheControl string)
	// Revocations are the tokens that are withdrawn. ChangeTokens returns when the change holds for the next request.
	Revocations  func() []RevocationStatus
	ChangeTokens func(ChangeTokens) error
	Metrics      func(w io.Writer) error
	Ready        func() error                             // nil: requests are taken
	LogLevel     func() (level string, debugged []string) // debugged: routes whose exchanges are logged whatever the level
	SetLogLevel  func(route, level string) error          // route "": of the whole log
	Canaries     func() []CanaryStatus
	Logins       func() []LoginsStatus
	EndSessions  func(who string) (int, error)
	// SetWeights and ChangeCanary return when the change holds for the next exchange.
	SetWeights   func(SetWeights) error
	ChangeCanary func(ChangeCanary) error
	// SetEndpoints returns when the change is in force.
	SetEndpoints func(SetEndpoints) error
	Reload       func() error // returns when the new configuration is in force or refused
	// Upgrade returns when another process serves, or why none does. binary "" is what this process was started from. With hurry a
	// process before that still drains is no reason to refuse: its tunnels end, and its end is waited for.
	Upgrade func(binary string, hurry bool) error
}

// Status is the gateway as a whole.
type Status struct {
	State      string        `json:"state"` // starting, serving or draining
	Version    string        `json:"version"`
	Commit     string        `json:"commit,omitempty"`
	Go         string        `json:"go"`
	PID        int           `json:"pid"`
	Started    time.Time     `json:"started"`
	ConfigFile string        `json:"config_file"`
	Generation int           `json:"generation"` // of the configuration; rises with each that is applied
	Reload     *ReloadStatus `json:"reload,omitempty"`
	// Upgrades is how many processes have served before this one, Process its own number in that chain, of which the first is 1,
	// ProcessStarted when it began; Started is of the service.
	Upgrades       int              `json:"upgrades"`
	Process        int              `json:"process"`
	ProcessStarted time.Time        `json:"process_started"`
	Upgrade        *UpgradeStatus   `json:"upgrade,omitempty"` // the last one that did not come about
	Older          *OlderStatus     `json:"older,omitempty"`   // nil: there is none any more
	Cluster        *ClusterStatus   `json:"cluster,omitempty"` // nil: nothing is shared with other nodes
	Loops          []LoopStatus     `json:"loops"`
	Listeners      []ListenerStatus `json:"listeners"`
	Tuning         *TuningStatus    `json:"tuning,omitempty"` // nil: starting
}

// TuningStatus is how the process is fitted to its host.
type TuningStatus struct {
	tuning.Limits
	CPUList    string `json:"cpu_list"`    // processors that its threads may run on, such as 2-5,8; "": the host does not tell
	MemoryUsed uint64 `json:"memory_used"` // by the process, or its cgroup, whichever is fuller; 0 with MemoryOf: it is not looked at
	MemoryOf   uint64 `json:"memory_of"`
	GCPercent  int    `json:"gc_percent"` // growth of the heap between collections of garbage; negative: there are none
	Shedding   bool   `json:"shedding"`   // new connections are refused, because memory is short
	Sheddings  uint64 `json:"sheddings"`  // times that this began
}

// ReloadStatus is the last reload.
type ReloadStatus struct {
	At      time.Time `json:"at"`
	Applied bool      `json:"applied"`
	Error   string    `json:"error,omitempty"`  // why it was refused
	Reason  string    `json:"reason,omitempty"` // one word for that, as in sluice_reload_failures_total
}

// UpgradeStatus is an upgrade that is under way or has failed.
type UpgradeStatus struct {
	At       time.Time `json:"at"`
	UnderWay bool      `json:"under_way"`
	Error    string    `json:"error,omitempty"`  // why this process still serves
	Reason   string    `json:"reason,omitempty"` // one word for that, as in sluice_upgrade_failures_total
}

// OlderStatus is the process before this one, which ends what it has begun.
type OlderStatus struct {
	PID         int       `json:"pid"`
	Version     string    `json:"version"`
	Process     int       `json:"process,omitempty"`    // its number in the chain of upgrades; 0: its version does not tell
	Generation  int       `json:"generation,omitempty"` // of the configuration that it serves; 0: likewise
	Started     time.Time `json:"started,omitzero"`     // when it began; zero: likewise
	Connections int       `json:"connections"`
	Exchanges   int       `json:"exchanges"`
	Tunnels     int       `json:"tunnels"`        // connections and streams that have become one, and those whose TLS is passed through
	Since       time.Time `json:"since,omitzero"` // when it stopped to accept
	Until       time.Time `json:"until,omitzero"` // when it ends at the latest; with tunnels, when these do
}

// LoopStatus is one event loop.
type LoopStatus struct {
	Index     int  `json:"index"`
	Exchanges int  `json:"exchanges"` // under way
	Stalled   bool `json:"stalled"`   // it did not answer in time: Exchanges is not known
}

// ListenerStatus is one listener.
type ListenerStatus struct {
	Name        string   `json:"name"`
	Binds       []string `json:"binds"`
	Connections int      `json:"connections"` // open
	Accepted    uint64   `json:"accepted"`    // since the start
}

// RouteStatus is one route, in the order of the configuration.
type RouteStatus struct {
	Name    string   `json:"name"`
	Matches []string `json:"matches"` // in the short form
	Action  string   `json:"action"`  // such as "to catalog" or "respond 200", with the weights in force

	Targets   []TargetStatus `json:"targets,omitempty"`   // where there are several upstreams
	Overrides []string       `json:"overrides,omitempty"` // what was changed at run time: weight
	Mirror    *MirrorStatus  `json:"mirror,omitempty"`    // nil: there is none
	Breaker   *BreakerStatus `json:"breaker,omitempty"`   // nil: none of its own
}

// CertificateStatus is one certificate of a listener. One without NotAfter could never be read, or is not there yet.
type CertificateStatus struct {
	Listener    string    `json:"listener"`
	Source      string    `json:"source"`         // file, reference, acme, or on_demand, which is by acme too
	File        string    `json:"file,omitempty"` // of source file
	Names       []string  `json:"names"`
	Issuer      string    `json:"issuer"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Key         string    `json:"key"`
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"`       // SHA-256
	Problem     string    `json:"problem,omitempty"` // why a renewal was not taken, or did not come
	// Next is when a certificate of acme is renewed or tried for again; zero: when it is known, or a client asks.
	Next   time.Time     `json:"next,omitzero"`
	Staple *StapleStatus `json:"staple,omitempty"` // nil: the certificate names no OCSP responder
}

// StapleStatus is the OCSP response that is stapled to a certificate.
type StapleStatus struct {
	State   string    `json:"state"` // off, waiting, good, revoked or failed
	Until   time.Time `json:"until,omitzero"`
	Next    time.Time `json:"next,omitzero"`     // when the responder is asked again
	Problem string    `json:"problem,omitempty"` // why the last question was in vain
}

// KeysStatus is one place that the keys of tokens come from.
type KeysStatus struct {
	Place   string    `json:"place"` // a URL, or file:/path
	Keys    int       `json:"keys"`  // in force
	IDs     []string  `json:"ids"`   // of those that have one
	Fetched time.Time `json:"fetched,omitzero"`
	Next    time.Time `json:"next,omitzero"`
	Problem string    `json:"problem,omitempty"` // why the last fetch failed
}

// UpstreamStatus is one upstream.
type UpstreamStatus struct {
	Name        string             `json:"name"`
	Balance     string             `json:"balance"`
	Panic       bool               `json:"panic,omitempty"`       // health is disregarded: too few endpoints are healthy
	Pending     int                `json:"pending"`               // requests that wait for a connection
	Active      int                `json:"active,omitempty"`      // requests under way, where their number is bounded
	Breaker     *BreakerStatus     `json:"breaker,omitempty"`     // nil: none stands before it
	Concurrency *ConcurrencyStatus `json:"concurrency,omitempty"` // nil: none is found
	Endpoints   []EndpointStatus   `json:"endpoints"`
	Removed     []string           `json:"removed,omitempty"` // endpoints of the configuration that were removed at run time
	Sources     []SourceStatus     `json:"sources,omitempty"` // where endpoints come from that do not stand in the configuration
}

// SourceStatus is a name that is resolved again and again, or a file that is watched.
type SourceStatus struct {
	Name      string    `json:"name"`      // host, srv:name, or the path of a file
	Kind      string    `json:"kind"`      // dns or file
	Endpoints int       `json:"endpoints"` // that are known
	Found     time.Time `json:"found,omitzero"`
	Next      time.Time `json:"next,omitzero"` // when a name is asked for again
	Failures  uint64    `json:"failures,omitempty"`
	Problem   string    `json:"problem,omitempty"` // why what is known is not new
}

// EndpointStatus is one address of an upstream.
type EndpointStatus struct {
	Address    string   `json:"address"` // as resolved
	Name       string   `json:"name"`    // as configured
	Weight     int      `json:"weight"`  // in force
	Configured int      `json:"configured_weight"`
	Priority   int      `json:"priority,omitempty"`
	Zone       string   `json:"zone,omitempty"`
	Labels     Labels   `json:"labels,omitempty"`
	Share      float64  `json:"share"`               // of the requests that it is meant to get, 0..1
	Flags      []string `json:"flags,omitempty"`     // why it is not used: check, ejected, draining, disabled or unchecked
	Overrides  []string `json:"overrides,omitempty"` // what was changed at run time: weight, draining, disabled or added
	InFlight   int      `json:"in_flight"`           // requests
	Latency    float64  `json:"latency,omitempty"`   // seconds, averaged; where the balance goes by it
	Open       int      `json:"open"`                // connections
	Idle       int      `json:"idle"`                // of those, connections that no exchange uses

	Health   *HealthStatus   `json:"health,omitempty"` // nil: it is not checked
	Ejection *EjectionStatus `json:"ejection,omitempty"`
}

// BreakerStatus is a breaker, which refuses requests unless it is closed.
type BreakerStatus struct {
	State     string  `json:"state"`          // closed, open or half-open
	Left      float64 `json:"left,omitempty"` // seconds of the cooldown
	Opened    uint64  `json:"opened"`         // times
	Refused   uint64  `json:"refused"`        // requests
	Fallbacks uint64  `json:"fallbacks"`      // of those, answered by the fallback
}

// ConcurrencyStatus is a limit on requests under way that is found by how long they take.
type ConcurrencyStatus struct {
	Limit    int     `json:"limit"`
	InFlight int     `json:"in_flight"`
	Least    float64 `json:"least_latency"` // seconds, without load; 0: not measured yet
}

// EjectionStatus says why an endpoint is ejected, and for how long.
type EjectionStatus struct {
	Cause string  `json:"cause"`
	Since float64 `json:"since"` // seconds ago
	Left  float64 `json:"left"`  // seconds; it ends with the first analysis after, or by a check
}

// HealthStatus is what active checks make of an endpoint.
type HealthStatus struct {
	State   string    `json:"state"`   // healthy, unhealthy, unchecked (it gets nothing before its first check) or off: nobody asks
	Settled bool      `json:"settled"` // it rests on results, rather than on what is assumed at the start
	Since   time.Time `json:"since"`
	Asked   time.Time `json:"asked,omitzero"`   // when the last probe ended
	Reason  string    `json:"reason,omitempty"` // why the last probe failed
}

// Labels are those of an endpoint.
type Labels map[string]string

// SetEndpoints changes endpoints of an upstream, all or none. It holds over reloads until the configuration changes the endpoint.
type SetEndpoints struct {
	Upstream  string   `json:"upstream"`
	Endpoints []string `json:"endpoints"`        // addresses, or names as configured
	Change    string   `json:"change"`           // weight, drain, disable, enable, add, remove or set
	Weight    *int     `json:"weight,omitempty"` // for weight: 0..1000; nil: the configured one again
}

// LogLevel is what the error log shows.
type LogLevel struct {
	Level  string   `json:"level"`
	Routes []string `json:"routes"` // whose exchanges are logged whatever the level
}

// SetLogLevel asks for another level. With a route, debug makes the log show its exchanges, and another level ends that.
type SetLogLevel struct {
	Level string `json:"level"`
	Route string `json:"route,omitempty"`
}

// failure is the body of an answer that tells of one.
type failure struct {
	Error string `json:"error"`
}

// state is the body of an answer that tells of one thing.
type state struct {
	Status string `json:"status"`
}
