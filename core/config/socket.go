package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Socket is how the TCP sockets of a listener or upstream differ from what the kernel makes of them. What is zero is left to it.
// One of a listener holds for the connections that it accepts.
type Socket struct {
	UserTimeout   time.Duration // that what was sent may wait for its acknowledgement; whole milliseconds
	NotSentLowat  int           // bytes that may wait unsent, up to 1GiB
	QuickAck      string        // on: what is read is acknowledged at once, for a system call each time; off: a connection begins with delayed acknowledgements
	BusyPoll      time.Duration // that a read polls the device, up to 1s; whole microseconds
	ReceiveBuffer int           // bytes, 4KiB..1GiB
	SendBuffer    int           // likewise
	Congestion    string        // the algorithm's name
	KeepAlive     KeepAlive
	Required      bool // an option that the kernel refuses is an error, and not only a warning

	// Of listeners alone:
	DeferAccept time.Duration // connections are accepted with their first byte, or after this time, up to 10m; whole seconds
	FastOpen    int           // requests in SYNs that may wait, 1..65535
	IncomingCPU bool          // connections whose packets the process's i-th processor takes in are preferred by the i-th loop
	Steer       bool          // all connections whose packets one processor takes in go to one loop; processors are dealt out evenly
	Backlog     int           // connections that may wait to be accepted, 1..1048576; 0: as many as the kernel allows
}

// KeepAlive is how silent peers are asked for a sign of life. What is zero is the kernel's.
type KeepAlive struct {
	Mode     string        // on or off; "": the kernel's, off
	Idle     time.Duration // of silence before the first question, up to 9h; whole seconds
	Interval time.Duration // between questions, likewise
	Probes   int           // unanswered ones that end the connection, 1..127
}

const (
	upstreamSocketKeys = "user_timeout notsent_lowat quickack busy_poll receive_buffer send_buffer congestion keepalive required"
	listenerSocketKeys = upstreamSocketKeys + " defer_accept fast_open incoming_cpu steer backlog"

	maxKeepAlive      = 9 * time.Hour // MAX_TCP_KEEPIDLE is 32767 s
	maxBufferBytes    = 1 << 30
	maxCongestionName = 15 // TCP_CA_NAME_MAX with its zero byte is 16
)

// listenerSocket reads the socket options of a listener.
func (d *decoder) listenerSocket(key string, n ast.Node, s *Socket) {
	d.mapping(key, n, listenerSocketKeys, func(key string, k, v ast.Node) bool {
		switch key {
		case "defer_accept":
			d.wholeDuration(key, v, time.Second, 10*time.Minute, &s.DeferAccept)
		case "fast_open":
			d.integer(key, v, 1, 65535, &s.FastOpen)
		case "incoming_cpu":
			d.boolean(key, v, &s.IncomingCPU)
		case "steer":
			d.boolean(key, v, &s.Steer)
		case "backlog":
			d.integer(key, v, 1, 1<<20, &s.Backlog)
		default:
			return d.socketOption(key, v, s)
		}
		return true
	})
	if s.Steer && s.IncomingCPU {
		d.problem(n, "drop one of the two", "%q and %q both choose the loop of a connection", "steer", "incoming_cpu")
	}
}

// upstreamSocket reads the socket options of an upstream. fast_open is not among them: a request in a SYN may come twice (RFC 7413
// section 6.1), and an endpoint that refuses would be noticed only after the request was sent.
func (d *decoder) upstreamSocket(key string, n ast.Node, s *Socket) {
	d.mapping(key, n, upstreamSocketKeys, func(key string, k, v ast.Node) bool { return d.socketOption(key, v, s) })
}

// socketOption reads an option that both have.
func (d *decoder) socketOption(key string, v ast.Node, s *Socket) (known bool) {
	switch key {
	case "user_timeout":
		d.wholeDuration(key, v, time.Millisecond, maxDuration, &s.UserTimeout)
	case "notsent_lowat":
		d.sizeInt(key, v, 1, maxBufferBytes, &s.NotSentLowat)
	case "quickack":
		d.word(key, v, "on off", &s.QuickAck)
	case "busy_poll":
		d.wholeDuration(key, v, time.Microsecond, time.Second, &s.BusyPoll)
	case "receive_buffer":
		d.sizeInt(key, v, 4<<10, maxBufferBytes, &s.ReceiveBuffer)
	case "send_buffer":
		d.sizeInt(key, v, 4<<10, maxBufferBytes, &s.SendBuffer)
	case "congestion":
		var name string
		if !d.text(key, v, &name) {
			return true
		}
		if name == "" || len(name) > maxCongestionName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			d.problem(v, "such as bbr or cubic", "%q cannot name an algorithm of congestion control", clip(name))
			return true
		}
		s.Congestion = name
	case "keepalive":
		d.keepAlive(key, v, &s.KeepAlive)
	case "required":
		d.boolean(key, v, &s.Required)
	default:
		return false
	}
	return true
}

// keepAlive reads on, off, the time before the first question, or a map.
func (d *decoder) keepAlive(key string, n ast.Node, a *KeepAlive) {
	n = d.resolve(n)
	switch x := n.(type) {
	case nil:
	case *ast.MappingNode, *ast.MappingValueNode:
		a.Mode = "on"
		d.mapping(key, n, "idle interval probes", func(key string, _, v ast.Node) bool {
			switch key {
			case "idle":
				d.wholeDuration(key, v, time.Second, maxKeepAlive, &a.Idle)
			case "interval":
				d.wholeDuration(key, v, time.Second, maxKeepAlive, &a.Interval)
			case "probes":
				d.integer(key, v, 1, 127, &a.Probes)
			default:
				return false
			}
			return true
		})
	default:
		if s, ok := x.(*ast.StringNode); ok && (s.Value == "on" || s.Value == "off") {
			a.Mode = s.Value
			return
		}
		a.Mode = "on"
		d.wholeDuration(key, n, time.Second, maxKeepAlive, &a.Idle)
	}
}

// checkListenerSocket refuses options that no socket of the listener has; n is where they stand.
func (d *decoder) checkListenerSocket(n ast.Node, l *Listener) {
	if n == nil {
		return
	}
	tcp := len(l.Binds) == 0 // which is a problem of its own
	for _, b := range l.Binds {
		tcp = tcp || b.Path == ""
	}
	switch {
	case !tcp:
		d.problem(n, "", "%q has no meaning on listener %q: it has unix sockets alone", "socket", l.Name)
	case l.Socket.FastOpen > 0 && l.TLS == nil:
		d.warnAt(d.at(n), "use it with tls", "%q without %q: the request of a SYN may come twice (RFC 7413 section 6.1)", "fast_open", "tls")
	}
}

// socket writes the options that are set, as both grammars read them.
func (w *dumper) socket(s *Socket) {
	if *s == (Socket{}) {
		return
	}
	var parts []string
	add := func(on bool, format string, args ...any) {
		if on {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(s.UserTimeout > 0, "user_timeout: %s", formatDuration(s.UserTimeout))
	add(s.NotSentLowat > 0, "notsent_lowat: %s", formatSize(int64(s.NotSentLowat)))
	add(s.QuickAck != "", "quickack: %s", s.QuickAck)
	add(s.BusyPoll > 0, "busy_poll: %s", formatDuration(s.BusyPoll))
	add(s.ReceiveBuffer > 0, "receive_buffer: %s", formatSize(int64(s.ReceiveBuffer)))
	add(s.SendBuffer > 0, "send_buffer: %s", formatSize(int64(s.SendBuffer)))
	add(s.Congestion != "", "congestion: %s", quote(s.Congestion))
	if a := &s.KeepAlive; a.Mode == "on" && *a != (KeepAlive{Mode: "on"}) {
		var inner []string
		if a.Idle > 0 {
			inner = append(inner, "idle: "+formatDuration(a.Idle))
		}
		if a.Interval > 0 {
			inner = append(inner, "interval: "+formatDuration(a.Interval))
		}
		if a.Probes > 0 {
			inner = append(inner, fmt.Sprintf("probes: %d", a.Probes))
		}
		add(true, "keepalive: { %s }", strings.Join(inner, ", "))
	} else {
		add(a.Mode != "", "keepalive: %s", a.Mode)
	}
	add(s.DeferAccept > 0, "defer_accept: %s", formatDuration(s.DeferAccept))
	add(s.FastOpen > 0, "fast_open: %d", s.FastOpen)
	add(s.IncomingCPU, "incoming_cpu: true")
	add(s.Steer, "steer: true")
	add(s.Backlog > 0, "backlog: %d", s.Backlog)
	add(s.Required, "required: true")
	if len(parts) > 0 {
		w.line("socket: { %s }", strings.Join(parts, ", "))
	}
}
