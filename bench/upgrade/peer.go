package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyTime = 20 * time.Second
	pollEvery = 10 * time.Millisecond
	// settleTime is what new workers have before the next reload: HAProxy's master may miss a signal until they serve.
	settleTime = 60 * time.Millisecond
	// tellAgain is how long a signal to reload may be without effect.
	tellAgain = 300 * time.Millisecond
)

// peer is a gateway that can be replaced. root is the process to signal; others descend from it, or it from them.
type peer struct {
	name          string
	plain, secure string // addresses
	folder        string
	drain         time.Duration
	command       []string
	config        string
	output        *os.File
	root          int
	workers       int                                      // processes beside root's that serve
	swap, reload  func(ctx context.Context, p *peer) error // swap returns when the old process has ended, reload when what is new serves
}

func newPeer(name string, o options, folder, upstream string, identity *identity) (*peer, error) {
	p := &peer{name: name, folder: folder, drain: o.drain, config: filepath.Join(folder, name+".conf")}
	for _, at := range []*string{&p.plain, &p.secure} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("cannot find a free port: %w", err)
		}
		*at = l.Addr().String()
		_ = l.Close()
	}
	binary, text := name, ""
	switch name {
	case "sluice":
		binary, text, p.swap = o.sluice, sluiceConfig, swapSluice
		p.reload = reloadSluice
		p.command = []string{"run", "-c", p.config}
	case "nginx":
		text, p.swap = nginxConfig, swapNginx
		p.workers, p.reload = nginxWorkers, signalled(syscall.SIGHUP)
		p.command = []string{"-c", p.config, "-p", folder}
	case "haproxy":
		text, p.swap = haproxyConfig, swapHAProxy
		p.workers, p.reload = 1, signalled(syscall.SIGUSR2)
		p.command = []string{"-W", "-f", p.config}
	default:
		return nil, fmt.Errorf("unknown peer %q: sluice, nginx or haproxy", name)
	}
	path, err := exec.LookPath(binary)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", name, err)
	}
	p.command = append([]string{path}, p.command...)
	text = strings.NewReplacer("DIR", folder, "PLAIN", p.plain, "SECURE", p.secure, "UPSTREAM", upstream, "DRAIN", strconv.Itoa(int(o.drain/time.Second)),
		"CERT", identity.cert, "KEY", identity.key, "BOTH", identity.both).Replace(text)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("cannot write %q: %w", p.config, err)
	}
	return p, nil
}

const nginxWorkers = 2 // as its configuration says

// The peers keep connections to the upstream and let an old process live for the same time.
const (
	sluiceConfig = `
drain: DRAINs
listeners:
  http: { bind: "PLAIN" }
  https: { bind: "SECURE", tls: { certificates: [{ cert: CERT, key: KEY }] } }
upstreams: { up: { endpoints: ["UPSTREAM"] } }
routes: [{ match: "/*", to: up }]
admin: { bind: "unix:DIR/admin.sock" }
`
	nginxConfig = `
user root;
worker_processes 2;
worker_shutdown_timeout DRAINs;
pid DIR/nginx.pid;
error_log DIR/nginx-error.log warn;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path DIR/nginx-body;
    proxy_temp_path DIR/nginx-proxy;
    fastcgi_temp_path DIR/nginx-fastcgi;
    uwsgi_temp_path DIR/nginx-uwsgi;
    scgi_temp_path DIR/nginx-scgi;
    upstream up { server UPSTREAM; keepalive 64; }
    server {
        listen PLAIN;
        listen SECURE ssl;
        ssl_certificate CERT;
        ssl_certificate_key KEY;
        proxy_http_version 1.1;
        location / { proxy_set_header Connection ""; proxy_pass http://up; }
        location /tunnel { proxy_set_header Connection Upgrade; proxy_set_header Upgrade $http_upgrade; proxy_pass http://up; }
    }
}
`
	haproxyConfig = `
global
    nbthread 2
    hard-stop-after DRAINs
    stats socket DIR/haproxy.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
frontend all
    bind PLAIN
    bind SECURE ssl crt BOTH
    default_backend up
backend up
    server up1 UPSTREAM
`
)

// start begins the first process. nginx makes a daemon of itself: without that it ignores USR2.
func (p *peer) start(ctx context.Context) error {
	var err error
	if p.output, err = os.Create(filepath.Join(p.folder, p.name+".log")); err != nil {
		return fmt.Errorf("cannot open the log: %w", err)
	}
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	p.root = cmd.Process.Pid
	go cmd.Wait() //nolint:errcheck // reaped; whether it still runs is asked of /proc
	for _, at := range []string{p.plain, p.secure} {
		if err := until(ctx, readyTime, func() bool { return reachable(at) }); err != nil {
			return errors.Join(fmt.Errorf("cannot reach it at %s: %w", at, err), p.stop())
		}
	}
	if p.name == "nginx" {
		return p.fromPIDFile(ctx, 0)
	}
	return nil
}

func reachable(at string) bool {
	c, err := net.DialTimeout("tcp", at, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// fromPIDFile makes root the process that nginx names, once that is another.
func (p *peer) fromPIDFile(ctx context.Context, other int) error {
	return until(ctx, readyTime, func() bool {
		text, _ := os.ReadFile(filepath.Join(p.folder, "nginx.pid"))
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || pid == other {
			return false
		}
		p.root = pid
		return true
	})
}

func swapSluice(ctx context.Context, p *peer) error {
	out, err := exec.CommandContext(ctx, p.command[0], "upgrade", "--wait", "-c", p.config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	old := p.root
	return until(ctx, p.drain+readyTime, func() bool {
		if alive(old) {
			return false
		}
		children := processes(func(_ int, line []string) bool { return slices.Equal(line, p.command) })
		if len(children) == 1 {
			p.root = children[0]
		}
		return len(children) == 1
	})
}

// reloadSluice is the command, which waits until the configuration is in force.
func reloadSluice(ctx context.Context, p *peer) error {
	out, err := exec.CommandContext(ctx, p.command[0], "ctl", "--admin", "unix:"+filepath.Join(p.folder, "admin.sock"), "reload", "--wait").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// signalled reloads by a signal, upon which new workers take the place of those that are there.
func signalled(sig syscall.Signal) func(ctx context.Context, p *peer) error {
	return func(ctx context.Context, p *peer) error {
		before := descendants(p.root)
		var told time.Time
		err := until(ctx, readyTime, func() bool {
			if time.Since(told) > tellAgain { // a master that is not done with the reload before may not hear of it
				told = time.Now()
				_ = syscall.Kill(p.root, sig)
			}
			now := slices.DeleteFunc(descendants(p.root), func(pid int) bool { return slices.Contains(before, pid) })
			return len(now) >= p.workers
		})
		if err != nil {
			return fmt.Errorf("no new workers: %w", err)
		}
		return pause(ctx, settleTime) // they exist, and have yet to tell the master that they serve
	}
}

// settled says whether only what is to serve is left.
func (p *peer) settled() bool { return len(descendants(p.root)) == p.workers }

// swapNginx is the manual's "Upgrading Executable on the Fly".
func swapNginx(ctx context.Context, p *peer) error {
	old := p.root
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("cannot signal: %w", err)
	}
	if err := p.fromPIDFile(ctx, old); err != nil {
		return fmt.Errorf("no new master: %w", err)
	}
	if err := until(ctx, readyTime, func() bool { return len(descendants(p.root)) >= 2 }); err != nil {
		return fmt.Errorf("no new workers: %w", err)
	}
	if err := syscall.Kill(old, syscall.SIGWINCH); err != nil {
		return fmt.Errorf("cannot signal: %w", err)
	}
	if err := until(ctx, p.drain+readyTime, func() bool {
		return len(descendants(old)) <= len(descendants(p.root))+1
	}); err != nil {
		return fmt.Errorf("old workers stay: %w", err)
	}
	if err := syscall.Kill(old, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("cannot signal: %w", err)
	}
	return until(ctx, p.drain+readyTime, func() bool { return !alive(old) })
}

func swapHAProxy(ctx context.Context, p *peer) error {
	before := descendants(p.root)
	if err := syscall.Kill(p.root, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("cannot signal: %w", err)
	}
	return until(ctx, p.drain+readyTime, func() bool {
		for _, pid := range before {
			if alive(pid) {
				return false
			}
		}
		return len(descendants(p.root)) == 1
	})
}

// stop ends the tree.
func (p *peer) stop() error {
	defer p.output.Close() //nolint:errcheck // it was written by others
	all := append(descendants(p.root), p.root)
	if alive(p.root) {
		_ = syscall.Kill(p.root, syscall.SIGTERM)
	}
	err := until(context.Background(), p.drain+readyTime, func() bool { return !alive(p.root) })
	for _, pid := range all {
		if alive(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return err
}

// resources are the RSS in KiB and the descriptors of the whole tree.
func (p *peer) resources() (rss, fds int, err error) {
	for _, pid := range append(descendants(p.root), p.root) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if !alive(pid) {
			continue // it has ended since
		}
		if err != nil {
			return 0, 0, fmt.Errorf("cannot look at process %d: %w", pid, err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
				rss += n
			}
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if !alive(pid) {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("cannot look at process %d: %w", pid, err)
		}
		fds += len(open)
	}
	return rss, fds, nil
}
