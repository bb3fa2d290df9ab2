package server

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/listen"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/tuning"
)

const (
	// usageEvery is how often the memory is looked at.
	usageEvery = 250 * time.Millisecond
	// collectEvery is how often garbage is collected while connections are refused: the runtime, which has little to do then, would
	// leave it, and with it the reading, as it is for minutes.
	collectEvery = 5 * time.Second
	// fewFiles is a limit of descriptors that a gateway is likely to meet.
	fewFiles = 16384
)

// fitted is how the process is fitted to its host, and how its memory fares.
type fitted struct {
	host       tuning.Host
	limits     atomic.Pointer[tuning.Limits]
	usage      atomic.Pointer[tuning.Usage] // nil: it is not looked at
	shed       listen.Shed
	times      atomic.Uint64 // that shed was set
	clockSteps atomic.Uint64 // times that the host's clock was set
	spec       config.Tuning // that is in force
	stop       chan struct{} // nil: nobody looks
	done       sync.WaitGroup
}

// tune fits the process to its host as the configuration says. What the environment says of the runtime stands above that: GOMEMLIMIT
// and GOGC are closer to the process.
func (s *Server) tune(c config.Tuning, first bool) {
	f := &s.fitted
	if c.CPUAt = (config.Pos{}); !first && c == f.spec {
		return
	}
	was := f.spec
	f.spec = c
	for _, l := range s.loops { // none at first: makeLoops has told those that it made
		l.Post(func() { l.BusyPoll(c.BusyPolling) })
	}
	if first {
		f.host.Files = os.DirFS("/")
	}
	cores := map[string]tuning.Cores{"off": tuning.CoresOff, "on": tuning.CoresOn}[c.CoreDumps]
	p := tuning.Process{Cores: cores, MemoryShare: c.MemoryPercent / 100, MemoryBytes: c.MemoryBytes, GCPercent: c.GCPercent, Files: c.RaiseFiles}
	if had := was.MemoryPercent > 0 || was.MemoryBytes > 0; had && c.MemoryPercent == 0 && c.MemoryBytes == 0 {
		p.MemoryBytes = math.MaxInt64
	}
	if was.GCPercent > 0 && c.GCPercent == 0 {
		p.GCPercent = 100
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		p.MemoryShare, p.MemoryBytes = 0, 0
	}
	if os.Getenv("GOGC") != "" {
		p.GCPercent = 0
	}
	l, err := p.Apply(&f.host)
	if err != nil {
		s.log.Warn("the process does not fit its host", "error", err)
	}
	f.limits.Store(&l)
	s.log.Info("tuned", "processors", l.CPUs, "on", s.pinning.host.Allowed().String(), "memory", l.MemoryBytes, "of", l.MemoryFrom, "memory_limit", l.MemoryLimit, "descriptors", l.Files)
	if cores == tuning.CoresOn && l.CoreBytes == 0 {
		s.log.Warn("no core dumps: the hard limit forbids them; see LimitCORE= of the unit, or ulimit -Hc")
	}
	if l.Files < fewFiles {
		s.log.Warn("few descriptors: clients beyond them wait; raise LimitNOFILE= of the unit, or ulimit -Hn", "descriptors", l.Files)
	}
}

// watchMemory looks at the memory until close, has listeners refuse connections while it is short, and the heap grow as fast as its
// garbage does; and looks at the clock.
func (s *Server) watchMemory() {
	f := &s.fitted
	read := s.options.Usage
	if read == nil {
		read = f.host.Usage
	}
	f.stop = make(chan struct{})
	fixed := os.Getenv("GOGC") != ""
	f.done.Go(func() {
		tick := time.NewTicker(usageEvery)
		defer tick.Stop()
		var mark tuning.Watermark
		collector := tuning.Collector{Read: f.heap}
		defer func() { collector.End(0) }()
		var clock clockWatch
		var collected time.Time
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			s.watchClock(&clock, time.Now())
			now := s.state.Load()
			if now == nil {
				continue
			}
			if set := &now.compiled.Config.Tuning; set.GCAuto && !fixed {
				collector.Look(time.Now())
			} else {
				collector.End(set.GCPercent)
			}
			var u tuning.Usage
			if mark.Above = now.compiled.Config.Tuning.ShedPercent / 100; mark.Above > 0 {
				u = read()
				f.usage.Store(&u)
			} else {
				f.usage.Store(nil)
			}
			over, changed := mark.Over(u)
			if changed {
				s.shedding(over, u)
			}
			if over && time.Since(collected) >= collectEvery {
				debug.FreeOSMemory()
				collected = time.Now()
			}
		}
	})
}

// heap is the runtime's, on a host of which the memory is known also where the runtime keeps to no limit.
func (f *fitted) heap() tuning.Heap {
	h := tuning.ReadHeap()
	if l := f.limits.Load(); l != nil && l.MemoryBytes > 0 {
		h.Limit = min(h.Limit, l.MemoryBytes)
	}
	return h
}

// shedding begins to refuse connections, or ends it.
func (s *Server) shedding(over bool, u tuning.Usage) {
	s.fitted.shed.Set(over)
	if !over {
		s.log.Info("connections are taken again", "used", u.Used, "limit", u.Limit)
		return
	}
	s.fitted.times.Add(1)
	s.log.Error("memory is short: new connections are refused; give the gateway more (MemoryMax=, memory_limit), or bound what clients hold (limits.connections, body_bytes)",
		"used", u.Used, "limit", u.Limit)
}

// endTuning ends what watchMemory began.
func (s *Server) endTuning() {
	if s.fitted.stop != nil {
		close(s.fitted.stop)
		s.fitted.done.Wait()
	}
}

// tuningStatus is how the process is fitted to its host.
func (s *Server) tuningStatus() *admin.TuningStatus {
	l := s.fitted.limits.Load()
	if l == nil {
		return nil
	}
	st := &admin.TuningStatus{Limits: *l, Shedding: s.fitted.shed.On(), Sheddings: s.fitted.times.Load(), GCPercent: tuning.ReadHeap().Percent}
	st.CPUs = runtime.GOMAXPROCS(0) // more than at first, by those that loops leave free
	st.CPUList = s.pinning.host.Allowed().String()
	if u := s.fitted.usage.Load(); u != nil {
		st.MemoryUsed, st.MemoryOf = u.Used, u.Limit
	}
	return st
}

// collectTuning tells the metrics of it.
func (s *Server) collectTuning(sink *observe.Sink) {
	l := s.fitted.limits.Load()
	if l == nil {
		return
	}
	shedding := 0.0
	if s.fitted.shed.On() {
		shedding = 1
	}
	sink.Gauge("sluice_memory_limit_bytes", "Memory that the runtime keeps to; 0: no limit.", float64(l.MemoryLimit))
	sink.Gauge("sluice_gc_percent", "Growth of the heap between collections of garbage, in percent.", float64(tuning.ReadHeap().Percent))
	sink.Gauge("sluice_file_limit", "Descriptors that the process may have.", float64(l.Files))
	sink.Gauge("sluice_shedding", "1 while new connections are refused because memory is short.", shedding)
	sink.Counter("sluice_sheddings_total", "Times that memory became so short that connections were refused.", float64(s.fitted.times.Load()))
	sink.Counter("sluice_clock_steps_total", "Times that the host's clock was set by a second or more, or the host slept.", float64(s.fitted.clockSteps.Load()))
	if u := s.fitted.usage.Load(); u != nil {
		sink.Gauge("sluice_memory_used_share", "Memory in use by its limit: of the process what a collection would leave, or of its cgroup.", u.Share())
	}
}

// checkSockets tries the socket options of upstreams, and of listeners whose sockets are open already: those that the kernel refuses
// are told, or refuse the configuration if they are required.
func (s *Server) checkSockets(c *config.Config) (err error) {
	try := func(kind, name string, pos config.Pos, required bool, refused []tuning.Refusal) {
		for _, r := range refused {
			if required {
				err = errors.Join(err, fmt.Errorf("%s: %s %q: %w", pos, kind, name, r))
			} else {
				s.log.Warn("socket option refused", kind, name, "option", r.Option, "error", r.Err)
			}
		}
	}
	for i := range c.Upstreams {
		if u := &c.Upstreams[i]; u.Socket != (config.Socket{}) {
			o := compile.Socket(&u.Socket)
			try("upstream", u.Name, u.Pos, o.Required, o.Probe(true))
		}
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		o := compile.Socket(&l.Socket)
		if have := s.listener(l.Name); have != nil && have.retuned(o) {
			try("listener", l.Name, l.Pos, o.Required, listen.Probe(o, len(s.loops)))
		}
	}
	return because(failedSocketOption, err)
}

// retuned says whether a listener has sockets with other options.
func (l *listener) retuned(o tuning.Socket) bool {
	for _, b := range l.binds {
		if b.bind.Path == "" && b.bind.Options != o {
			return true
		}
	}
	return false
}

// retune sets other options on the sockets of a bind. What the kernel refuses has been told by checkSockets.
func (l *listener) retune(s *Server, sockets *listen.Sockets, was, now tuning.Socket) {
	if dropped := was.Dropped(&now); len(dropped) > 0 {
		s.log.Warn("socket options that are not written any more stay set until the listener is opened anew", "listener", l.name,
			"bind", sockets.String(), "options", dropped)
	}
	onEach(s.loops, func(i int) { _ = l.ports[i].Retune(sockets, now) })
}

// tellRefused tells which options of new sockets the kernel has refused.
func (o *opened) tellRefused(s *Server) {
	for i := range o.binds {
		for _, b := range o.binds[i] {
			if b.sockets == nil {
				continue
			}
			for _, r := range b.sockets.Refused() {
				s.log.Warn("socket option refused", "listener", o.compiled.Config.Listeners[i].Name, "bind", b.sockets.String(), "option", r.Option, "error", r.Err)
			}
		}
	}
}
