package main

import (
	"fmt"
	"net/http"
	"slices"
)

const (
	smallBodyBytes  = 1 << 10
	mediumBodyBytes = 64 << 10
	largeBodyBytes  = 1 << 20
	postBodyBytes   = 16 << 10
	callBytes       = 128 // of a call's message, and of its answer's

	routeCount        = 10_000
	idleConnections   = 10_000
	activeConnections = 2_000
	handshakesAtOnce  = 32
)

// kind says which figure a scenario yields.
type kind int

const (
	cpuPerRequest       kind = iota // microseconds of CPU, under load
	memoryPerIdle                   // KiB of RSS for each keep-alive connection that has made a request
	memoryPerInProgress             // KiB of RSS for each connection whose request waits for the upstream
)

func (k kind) unit() string {
	if k == cpuPerRequest {
		return "µs/request"
	}
	return "KiB/connection"
}

// scenario is one row of the table. It is plain data and never changed.
type scenario struct {
	name        string
	kind        kind
	wire        wire
	handshake   handshake
	connections int // at once
	streams     int // HTTP/2: requests at once on each connection
	method      string
	path        string
	reply       reply  // what every proxy must answer before anything is counted
	calls       bool   // what gRPC's unary calls are made of, to an upstream of HTTP/2: small bodies, and trailers after the answer
	bodyReader  bool   // the upstream is the one that reads request bodies and can hold a request
	script      string // an embedded file for wrk -s
	routes      int    // 0: one route for everything
	accessLog   bool
	limits      bool         // three levels of limits, keyed by a header: Sluice with them against itself without
	tokens      bool         // clients show one of many tokens, which is verified: Sluice with that against itself without
	resilience  bool         // everything on that keeps requests from what fails: Sluice with it against itself without
	option      socketOption // Sluice with it against itself without
	// target is the bound of Sluice's figure: relative to the better of the peers for CPU, and for memory where againstPeers
	// is set, else in KiB; 0 is none.
	target       float64
	againstPeers bool
}

// reply is the answer a proxy must give for a scenario.
type reply struct {
	status    int
	bodyBytes int
}

func (s scenario) label() string { return s.name }

// againstItself says whether the subject is compared with itself.
func (s scenario) againstItself() bool {
	return s.limits || s.tokens || s.resilience || s.option.name != ""
}

// against gives the peers of the scenario: those that were chosen, unless it compares the subject with itself.
func (s scenario) against(chosen []peer) []peer {
	if !s.againstItself() {
		return slices.DeleteFunc(slices.Clone(chosen), func(p peer) bool { return p.bytes && !s.passable() })
	}
	var pair []peer
	for _, p := range chosen {
		if p.name == subject {
			without := p
			without.name, without.plain = p.name+"-plain", true
			pair = append(pair, p, without)
		}
	}
	return pair
}

// passable says whether one who passes on bytes gives the right answers.
func (s scenario) passable() bool {
	return s.kind == cpuPerRequest && s.wire == (wire{}) && s.routes == 0 && !s.accessLog && !s.calls
}

// relative tells whether the target compares with the peers.
func (s scenario) relative() bool { return s.kind == cpuPerRequest || s.againstPeers }

// keptScenario is the one that others differ from: 64 connections that are kept.
func keptScenario() scenario {
	return scenario{connections: 64, method: http.MethodGet, path: "/1k", reply: reply{http.StatusOK, smallBodyBytes}}
}

// allScenarios are those that are run unless some are named. Those of socket options are not among them.
func allScenarios() []scenario {
	get := keptScenario()
	with := func(name string, target float64, change func(*scenario)) scenario {
		s := get
		s.name, s.target = name, target
		change(&s)
		return s
	}
	return append([]scenario{
		with("h1-64", 0.88, func(*scenario) {}),
		with("h1-512", 0.85, func(s *scenario) { s.connections = 512 }),
		with("h1-1", 1.0, func(s *scenario) { s.connections = 1 }),
		with("body-64k", 0.80, func(s *scenario) { s.path, s.reply.bodyBytes = "/64k", mediumBodyBytes }),
		with("body-1m", 0.90, func(s *scenario) { s.path, s.reply.bodyBytes = "/1m", largeBodyBytes }),
		with("post-16k", 0.90, func(s *scenario) {
			s.method, s.path, s.script, s.bodyReader = http.MethodPost, pathSink, "post.lua", true
			s.reply.bodyBytes = len(sinkAnswer)
		}),
		with("routes-10k", 0, func(s *scenario) { s.routes, s.path = routeCount, routePrefix(routeCount/2)+"/item" }),
		with("log-h1-64", 0.95, func(s *scenario) { s.accessLog = true }),
		with("limits-h1-64", 1.05, func(s *scenario) { s.limits, s.script = true, "tenants.lua" }),
		with("h1-64-jwt", 0, func(s *scenario) { s.tokens, s.script = true, "tokens.lua" }),
		with("resilience-h1-64", 1.03, func(s *scenario) { s.resilience = true }),
		with("idle", 0.5, func(s *scenario) { s.kind, s.connections = memoryPerIdle, idleConnections }),
		with("active", 10, func(s *scenario) {
			s.kind, s.connections, s.path, s.bodyReader = memoryPerInProgress, activeConnections, pathHold, true
			s.reply.bodyBytes = len(holdAnswer)
		}),
	}, encryptedScenarios(with)...)
}

// encryptedScenarios are those with TLS or HTTP/2 toward the clients.
func encryptedScenarios(with func(string, float64, func(*scenario)) scenario) []scenario {
	encrypted, overH2, overH2C := wire{tls: true}, wire{tls: true, h2: true}, wire{h2: true}
	streams := func(w wire, connections, streams int) func(*scenario) {
		return func(s *scenario) { s.wire, s.connections, s.streams = w, connections, streams }
	}
	return []scenario{
		with("tls-64", 0.85, func(s *scenario) { s.wire = encrypted }),
		with("tls-handshake", 0.80, func(s *scenario) {
			s.wire, s.handshake, s.connections = encrypted, handshakeFull, handshakesAtOnce
		}),
		with("tls-resumed", 0.90, func(s *scenario) {
			s.wire, s.handshake, s.connections = encrypted, handshakeResumed, handshakesAtOnce
		}),
		with("tls-64k", 0.85, func(s *scenario) { s.wire, s.path, s.reply.bodyBytes = encrypted, "/64k", mediumBodyBytes }),
		with("tls-1m", 0.95, func(s *scenario) { s.wire, s.path, s.reply.bodyBytes = encrypted, "/1m", largeBodyBytes }),
		with("h2-8x32", 0.55, streams(overH2, 8, 32)),
		with("h2c-8x32", 0.55, streams(overH2C, 8, 32)),
		with("h2-64x10", 0.65, streams(overH2, 64, 10)),
		with("h2-1x1", 0.90, streams(overH2, 1, 1)),
		with("grpc-8x32", 0.70, func(s *scenario) {
			s.wire, s.connections, s.streams, s.calls = overH2, 8, 32, true
			s.method, s.path, s.reply.bodyBytes = http.MethodPost, "/shop.Orders/Get", callBytes
		}),
		with("idle-tls", 16, func(s *scenario) {
			s.wire, s.kind, s.connections = encrypted, memoryPerIdle, idleConnections
		}),
		with("idle-h2", 1.5, func(s *scenario) {
			s.wire, s.kind, s.connections, s.againstPeers = overH2, memoryPerIdle, idleConnections, true
		}),
	}
}

// routePrefix names route n, counted from 1; the names have one length so that every route costs the same to tell apart.
func routePrefix(n int) string { return fmt.Sprintf("/service-%05d", n) }

func (s scenario) routePrefixes() []string {
	prefixes := make([]string, s.routes)
	for i := range prefixes {
		prefixes[i] = routePrefix(i + 1)
	}
	return prefixes
}

// forwardedForPath answers with the X-Forwarded-For that the upstream saw.
func (s scenario) forwardedForPath() string {
	if s.routes > 0 {
		return routePrefix(s.routes/2) + pathForwardedFor
	}
	return pathForwardedFor
}
