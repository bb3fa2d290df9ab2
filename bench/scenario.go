package main

import (
	"fmt"
	"net/http"
)

const (
	smallBodyBytes  = 1 << 10
	mediumBodyBytes = 64 << 10
	largeBodyBytes  = 1 << 20
	postBodyBytes   = 16 << 10

	routeCount        = 10_000
	idleConnections   = 10_000
	activeConnections = 2_000
)

// kind says which figure a scenario yields.
type kind int

const (
	cpuPerRequest       kind = iota // microseconds of CPU, under load by wrk
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
	connections int
	method      string
	path        string
	reply       reply  // what every proxy must answer before anything is counted
	bodyReader  bool   // the upstream is the one that reads request bodies and can hold a request
	script      string // an embedded file for wrk -s
	routes      int    // 0: one route for everything
	accessLog   bool
	// target is the bound of Sluice's figure: relative to the better of the peers for CPU, in KiB for memory; 0 is none.
	target float64
}

// reply is the answer a proxy must give for a scenario.
type reply struct {
	status    int
	bodyBytes int
}

func (s scenario) label() string { return s.name }

// relative tells whether the target compares with the peers.
func (s scenario) relative() bool { return s.kind == cpuPerRequest }

func allScenarios() []scenario {
	small := reply{http.StatusOK, smallBodyBytes}
	get := scenario{connections: 64, method: http.MethodGet, path: "/1k", reply: small}
	with := func(name string, target float64, change func(*scenario)) scenario {
		s := get
		s.name, s.target = name, target
		change(&s)
		return s
	}
	return []scenario{
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
		with("idle", 0.5, func(s *scenario) { s.kind, s.connections = memoryPerIdle, idleConnections }),
		with("active", 10, func(s *scenario) {
			s.kind, s.connections, s.path, s.bodyReader = memoryPerInProgress, activeConnections, pathHold, true
			s.reply.bodyBytes = len(holdAnswer)
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
