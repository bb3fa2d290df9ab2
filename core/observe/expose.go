package observe

import (
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/sluice-gateway/sluice/core"
)

// expositionBuffer is how much of the exposition is gathered before it is written.
const expositionBuffer = 64 << 10

// exposition writes metric families. After a failed write it writes nothing more.
type exposition struct {
	w        io.Writer
	buf      []byte
	err      error
	last     []lastKnown
	registry *Registry
}

func (e *exposition) finish() error {
	e.flush()
	return e.err
}

func (e *exposition) flush() {
	if e.err == nil && len(e.buf) > 0 {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

// family starts a metric family. help is one line without a backslash.
func (e *exposition) family(name, kind, help string) {
	e.buf = append(e.buf, "# HELP "...)
	e.buf = append(append(append(e.buf, name...), ' '), help...)
	e.buf = append(e.buf, "\n# TYPE "...)
	e.buf = append(append(append(append(e.buf, name...), ' '), kind...), '\n')
}

// sample writes one line; labels are as appendLabels writes them.
func (e *exposition) sample(name, suffix string, labels []byte, more, value string) {
	e.buf = append(append(e.buf, name...), suffix...)
	if len(labels)+len(more) > 0 {
		e.buf = append(append(e.buf, '{'), labels...)
		if len(labels) > 0 && len(more) > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(append(e.buf, more...), '}')
	}
	e.buf = append(append(append(e.buf, ' '), value...), '\n')
	if len(e.buf) >= expositionBuffer {
		e.flush()
	}
}

func (e *exposition) float(name string, v float64, labels ...string) {
	e.sample(name, "", appendLabels(nil, labels), "", strconv.FormatFloat(v, 'g', -1, 64))
}

func (e *exposition) uint(name string, v uint64, labels ...string) {
	e.sample(name, "", appendLabels(nil, labels), "", strconv.FormatUint(v, 10))
}

func (e *exposition) classes(name string, labels []byte, b *byClass) {
	for k, n := range b {
		if n > 0 {
			e.sample(name, "", labels, `code="`+classNames[k]+`"`, strconv.FormatUint(n, 10))
		}
	}
}

func (e *exposition) histogram(name string, labels []byte, h *histogram) {
	n := uint64(0)
	for i, text := range boundTexts {
		n += h.buckets[i]
		e.sample(name, "_bucket", labels, `le="`+text+`"`, strconv.FormatUint(n, 10))
	}
	n += h.buckets[len(bounds)]
	count := strconv.FormatUint(n, 10)
	e.sample(name, "_bucket", labels, `le="+Inf"`, count)
	e.sample(name, "_sum", labels, "", strconv.FormatFloat(float64(h.sum)/1e9, 'g', -1, 64))
	e.sample(name, "_count", labels, "", count)
}

// each calls f for the ids that are in force and have been used.
func (v *view[T]) each(e *exposition, f func(labels []byte, c *T)) {
	var labels []byte
	for id, n := range e.registry.live(v.kind) {
		if n == "" {
			continue
		}
		total, ok := v.sum(e.last, id)
		if !ok {
			continue
		}
		switch v.kind {
		case Listeners:
			labels = appendLabels(labels[:0], []string{"listener", string(n)})
		case Routes:
			labels = appendLabels(labels[:0], []string{"route", string(n)})
		case Pools:
			labels = appendLabels(labels[:0], []string{"upstream", string(n)})
		case Endpoints:
			pool, address := n.endpoint()
			labels = appendLabels(labels[:0], []string{"upstream", pool, "endpoint", address})
		}
		f(labels, &total)
	}
}

// expose writes every family: of the traffic, of the loops, of the process.
func (o *Observer) expose(e *exposition) {
	e.traffic()
	e.failures()
	o.exposeLoops(e)
	o.exposeSelf(e)
	o.exposeCollected(e)
	e.flush()
	if e.err == nil {
		metrics.WriteProcessMetrics(e.w)
	}
}

// traffic writes a family at a time, as the format wants it.
func (e *exposition) traffic() {
	e.family("sluice_requests_total", "counter", "Requests by listener and class of the status sent; gone: the client had left.")
	listenerView.each(e, func(labels []byte, c *listenerCell) {
		e.classes("sluice_requests_total", labels, &c.requests)
	})
	routes := func(name, kind, help string, f func(labels []byte, c *routeCell)) {
		e.family(name, kind, help)
		routeView.each(e, f)
	}
	routes("sluice_route_requests_total", "counter", "Requests by route and class of the status sent; route none: no route was met.", func(labels []byte, c *routeCell) {
		e.classes("sluice_route_requests_total", labels, &c.requests)
	})
	routes("sluice_request_bytes_total", "counter", "Bytes of request bodies received.", func(labels []byte, c *routeCell) {
		e.sample("sluice_request_bytes_total", "", labels, "", strconv.FormatUint(c.requestBytes, 10))
	})
	routes("sluice_response_bytes_total", "counter", "Bytes of response bodies sent.", func(labels []byte, c *routeCell) {
		e.sample("sluice_response_bytes_total", "", labels, "", strconv.FormatUint(c.responseBytes, 10))
	})
	routes("sluice_request_duration_seconds", "histogram", "First byte of the request to last byte of the response, without tunnels.", func(labels []byte, c *routeCell) {
		e.histogram("sluice_request_duration_seconds", labels, &c.request)
	})
	routes("sluice_upstream_duration_seconds", "histogram", "Request sent to the upstream to first byte of its response.", func(labels []byte, c *routeCell) {
		e.histogram("sluice_upstream_duration_seconds", labels, &c.upstream)
	})
	routes("sluice_gateway_duration_seconds", "histogram", "Time added by the gateway: until the request was sent upstream, and after the response's last byte was received.", func(labels []byte, c *routeCell) {
		e.histogram("sluice_gateway_duration_seconds", labels, &c.gateway)
	})
	e.upstreams()
}

func (e *exposition) upstreams() {
	pools := func(name, help string, value func(*poolCell) uint64) {
		e.family(name, "counter", help)
		poolView.each(e, func(labels []byte, c *poolCell) {
			e.sample(name, "", labels, "", strconv.FormatUint(value(c), 10))
		})
	}
	pools("sluice_upstream_exchanges_total", "Requests handed to an upstream, answered or not.", func(c *poolCell) uint64 { return c.requests })
	pools("sluice_retries_total", "Attempts beyond the first.", func(c *poolCell) uint64 { return c.retries })
	endpoints := func(name, kind, help string, f func(labels []byte, c *endpointCell)) {
		e.family(name, kind, help)
		endpointView.each(e, f)
	}
	endpoints("sluice_upstream_requests_total", "counter", "Requests that an endpoint answered, by class of the status.", func(labels []byte, c *endpointCell) {
		e.classes("sluice_upstream_requests_total", labels, &c.requests)
	})
	endpoints("sluice_endpoint_duration_seconds", "histogram", "Request sent to the endpoint to first byte of its response.", func(labels []byte, c *endpointCell) {
		e.histogram("sluice_endpoint_duration_seconds", labels, &c.duration)
	})
}

// failures writes what is counted by reason. Several errors may have one reason.
func (e *exposition) failures() {
	rejects, failed := map[[2]string]uint64{}, map[[3]string]uint64{}
	pools, endpoints := e.registry.live(Pools), e.registry.live(Endpoints)
	for i := range e.last {
		for err, n := range e.last[i].rejects {
			rejects[[2]string{err.Reason, err.Side.String()}] += n
		}
		for f, n := range e.last[i].failures {
			p, at := nameOf(pools, f.pool), nameOf(endpoints, f.endpoint)
			if p != "" && at != "" {
				_, address := at.endpoint()
				failed[[3]string{string(p), address, f.err.Reason}] += n
			}
		}
	}
	e.family("sluice_rejects_total", "counter", "Exchanges that failed, by reason and the side to blame.")
	for _, r := range slices.SortedFunc(maps.Keys(rejects), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e.uint("sluice_rejects_total", rejects[r], "reason", r[0], "side", r[1])
	}
	e.family("sluice_upstream_failures_total", "counter", "Failed attempts by reason; endpoint none: it came to none.")
	for _, f := range slices.SortedFunc(maps.Keys(failed), func(a, b [3]string) int { return slices.Compare(a[:], b[:]) }) {
		e.uint("sluice_upstream_failures_total", failed[f], "upstream", f[0], "endpoint", f[1], "reason", f[2])
	}
}

func (o *Observer) exposeLoops(e *exposition) {
	perLoop := func(name, kind, help string, value func(k *lastKnown) float64) {
		e.family(name, kind, help)
		for i := range e.last {
			e.float(name, value(&e.last[i]), "loop", strconv.Itoa(i))
		}
	}
	perLoop("sluice_loop_stalled", "gauge", "1: the event loop did not hand over its counters in time; its last known ones are shown.", func(k *lastKnown) float64 {
		if k.stalled {
			return 1
		}
		return 0
	})
	perLoop("sluice_loop_late_total", "counter", "Tasks that held an event loop for longer than 5 ms.", func(k *lastKnown) float64 { return float64(k.late) })
	perLoop("sluice_loop_late_seconds_total", "counter", "Time for which such tasks held an event loop.", func(k *lastKnown) float64 { return float64(k.lateTime) / 1e9 })
	perLoop("sluice_panics_total", "counter", "Panics that ended a task.", func(k *lastKnown) float64 { return float64(k.panics) })
}

// exposeSelf writes what is known of the process as a gateway.
func (o *Observer) exposeSelf(e *exposition) {
	e.family("sluice_build_info", "gauge", "1, with what was built.")
	e.uint("sluice_build_info", 1, "version", o.options.Version, "commit", o.options.Commit, "go", runtime.Version())
	e.family("sluice_uptime_seconds", "gauge", "Time since the start, over upgrades.")
	e.float("sluice_uptime_seconds", time.Since(*o.started.Load()).Seconds())
	e.family("sluice_reloads_total", "counter", "Reloads of the configuration by result.")
	e.uint("sluice_reloads_total", o.reloads[1].Load(), "result", "applied")
	e.uint("sluice_reloads_total", o.reloads[0].Load(), "result", "refused")
	e.family("sluice_reload_applied_timestamp_seconds", "gauge", "When a reload was last applied, in Unix time; 0: never.")
	e.float("sluice_reload_applied_timestamp_seconds", float64(o.reloadedAt.Load()))
	lines, dropped, errors := o.logCounts()
	e.family("sluice_access_log_lines_total", "counter", "Lines of the access log that were written.")
	e.uint("sluice_access_log_lines_total", lines)
	e.family("sluice_access_log_dropped_total", "counter", "Lines of the access log that were dropped, the queue being full or a write having failed.")
	e.uint("sluice_access_log_dropped_total", dropped)
	e.family("sluice_access_log_errors_total", "counter", "Failed writes of the access log.")
	e.uint("sluice_access_log_errors_total", errors)
	if l := o.options.Log; l != nil {
		e.family("sluice_error_log_dropped_total", "counter", "Lines of the error log that were dropped, its queue being full or a write having failed.")
		e.uint("sluice_error_log_dropped_total", l.Dropped())
	}
}

// collected asks all collectors. The caller holds o.scrape.mu.
func (o *Observer) collected(last []lastKnown) *Sink {
	s := newSink()
	o.scrape.collectMu.Lock()
	global := o.scrape.global
	o.scrape.collectMu.Unlock()
	for _, f := range global {
		f(s)
	}
	for i := range last {
		if last[i].sink != nil {
			s.merge(last[i].sink)
		}
	}
	if o.scrape.inherited != nil {
		s.merge(o.scrape.inherited)
	}
	return s
}

func (o *Observer) exposeCollected(e *exposition) {
	s := o.collected(e.last)
	for _, n := range s.names() {
		f := s.families[n]
		e.family(n, f.kind, f.help)
		for _, labels := range slices.Sorted(maps.Keys(f.values)) {
			e.sample(n, "", []byte(labels), "", strconv.FormatFloat(f.values[labels], 'g', -1, 64))
		}
	}
}

func nameOf(names []name, id int) name {
	if id < len(names) {
		return names[id]
	}
	return ""
}

var _ core.Observer = (*Observer)(nil)
