package main

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/template"
)

//go:embed peers
var peerFiles embed.FS

const (
	nginxBinary   = "nginx"
	haproxyBinary = "haproxy"
	wrkBinary     = "wrk"

	subject = "sluice" // the peer that the others are compared with
)

// peer is one proxy under measure. It is plain data and never changed.
type peer struct {
	name        string
	binary      string
	versionArgs []string
	files       []peerFile // the first one is the configuration
	args        func(dir, configPath string) []string
	logToStdout bool // the access log is whatever the process prints
	bytes       bool // knows no protocol: what the kernel's part of a request costs, and nobody to be better than
	plain       bool // without the limits, the tokens, the resilience or the socket option of the scenario
}

// peerFile is a template under peers/ and the name its text gets in the working folder.
type peerFile struct {
	template string
	name     string
}

// site is what the templates are filled with. Its fields are what the peers have in common.
type site struct {
	Dir          string
	Listen       string // address:port
	Upstream     string // address:port
	Connections  int    // at most, both sides together
	UpstreamIdle int    // upstream connections kept
	FileLimit    uint64
	AccessLog    string   // empty: no access log
	Routes       []string // path prefixes; empty: one route for all
	RouteMap     string   // where HAProxy's map is
	LargeBuffers bool     // 64 KiB buffers for bodies instead of the peers' defaults
	SmallBody    string   // upstream only
	GRPC         bool     // the upstream speaks HTTP/2
	TLS          bool     // clients speak TLS, and by ALPN HTTP/1.1 or HTTP/2
	H2C          bool     // clients speak HTTP/2 by prior knowledge
	Certificate  string   // PEM file
	Key          string   // PEM file
	Both         string   // PEM file of certificate and key
	Limits       bool     // three levels of limits, the innermost by a header
	TokenKeys    string   // JWKS file; "": requests need no token
	Socket       string   // options of the listener's sockets
	UpSocket     string   // options of the upstream's sockets
	Tuning       string   // options of the process
	Loops        string   // event loops
	Resilience   bool     // a balance by requests in flight, ejections, a breaker, bounds on requests, retries
}

func (p peer) label() string { return p.name }

func allPeers(sluicePath string) []peer {
	return []peer{
		{
			name: subject, binary: sluicePath, versionArgs: []string{"version"},
			files: []peerFile{{"sluice.yaml.tmpl", "sluice.yaml"}},
			args:  func(_, config string) []string { return []string{"run", "-c", config} },
		},
		{
			name: "nginx", binary: nginxBinary, versionArgs: []string{"-v"},
			files: []peerFile{{"nginx.conf.tmpl", "nginx.conf"}},
			args:  nginxArgs,
		},
		{
			name: "haproxy", binary: haproxyBinary, versionArgs: []string{"-v"},
			files:       []peerFile{{"haproxy.cfg.tmpl", "haproxy.cfg"}, {"routes.map.tmpl", "routes.map"}},
			args:        func(_, config string) []string { return []string{"-db", "-f", config} },
			logToStdout: true,
		},
	}
}

// bytesOnly is the peer that passes on bytes: the bench's own binary. It is measured where it is named.
func bytesOnly(self string) peer {
	return peer{
		name: childRelay, binary: self, bytes: true,
		files: []peerFile{{"relay.tmpl", "relay"}},
		args:  func(_, config string) []string { return []string{childRelay, config} },
	}
}

func nginxArgs(dir, config string) []string {
	// -e: without it nginx first opens the log it was built with.
	return []string{"-p", dir, "-e", filepath.Join(dir, "nginx-start.log"), "-c", config}
}

// findTools refuses before anything is started: half a table is worse than none.
func findTools(peers []peer, scenarios []scenario) error {
	var problems []error
	for _, p := range peers {
		if _, err := exec.LookPath(p.binary); err != nil {
			advice := "install it with `make bench-deps`"
			if p.name == subject {
				advice = "build it with `make build`, name it with -sluice"
			}
			problems = append(problems, fmt.Errorf("cannot find %s: %w (%s, or leave it out with -peers)", p.name, err, advice))
		}
	}
	needed := map[string]string{nginxBinary: "every scenario"}
	for _, s := range scenarios {
		if tool := s.tool(); tool != "" && needed[tool] == "" {
			needed[tool] = s.name
		}
	}
	for _, tool := range slices.Sorted(maps.Keys(needed)) {
		if _, err := exec.LookPath(tool); err != nil {
			problems = append(problems, fmt.Errorf("cannot find %s, which %s needs: %w (install it with `make bench-deps`)",
				tool, needed[tool], err))
		}
	}
	return errors.Join(problems...)
}

// writeConfig renders the peer's files into s.Dir and returns the path of its configuration.
func (p peer) writeConfig(s site) (string, error) {
	if p.plain {
		s.Limits, s.Resilience, s.TokenKeys, s.Socket, s.UpSocket, s.Tuning = false, false, "", "", "", ""
	}
	for _, file := range p.files {
		if err := render(file.template, filepath.Join(s.Dir, file.name), s); err != nil {
			return "", err
		}
	}
	return filepath.Join(s.Dir, p.files[0].name), nil
}

// render fills an embedded template and writes it to path.
func render(name, path string, s site) (err error) {
	parsed, err := template.New(name).Option("missingkey=error").ParseFS(peerFiles, "peers/"+name)
	if err != nil {
		return fmt.Errorf("cannot parse template %q: %w", name, err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot create %q: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := parsed.Execute(file, s); err != nil {
		return fmt.Errorf("cannot render %q: %w", name, err)
	}
	return nil
}
