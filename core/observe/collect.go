package observe

import (
	"maps"
	"slices"
	"strings"
)

// Sink takes the figures of collectors, which ask at each scrape what somebody else keeps. Figures with the same name and
// labels are added up, over loops too. It is used by one goroutine at a time.
type Sink struct{ families map[string]*family }

type family struct {
	kind, help string
	values     map[string]float64 // by labels, as they are written
}

func newSink() *Sink { return &Sink{families: map[string]*family{}} }

// Gauge adds to a figure that may fall. Labels are pairs of name and value.
func (s *Sink) Gauge(name, help string, value float64, labels ...string) {
	s.add("gauge", name, help, value, labels)
}

// Counter adds to a figure that only rises.
func (s *Sink) Counter(name, help string, value float64, labels ...string) {
	s.add("counter", name, help, value, labels)
}

func (s *Sink) add(kind, name, help string, value float64, labels []string) {
	f := s.families[name]
	if f == nil {
		f = &family{kind: kind, help: help, values: map[string]float64{}}
		s.families[name] = f
	}
	f.values[string(appendLabels(nil, labels))] += value
}

func (s *Sink) merge(o *Sink) {
	for n, of := range o.families {
		f := s.families[n]
		if f == nil {
			f = &family{kind: of.kind, help: of.help, values: map[string]float64{}}
			s.families[n] = f
		}
		for labels, v := range of.values {
			f.values[labels] += v
		}
	}
}

func (s *Sink) names() []string { return slices.Sorted(maps.Keys(s.families)) }

// Collect makes f run at each scrape, on the goroutine of whoever scrapes.
func (o *Observer) Collect(f func(*Sink)) {
	o.scrape.collectMu.Lock()
	defer o.scrape.collectMu.Unlock()
	o.scrape.global = append(slices.Clone(o.scrape.global), f)
}

// CollectOnLoops makes f run at each scrape on every loop, for what loops own. It must not wait.
func (o *Observer) CollectOnLoops(f func(index int, s *Sink)) {
	o.scrape.collectMu.Lock()
	defer o.scrape.collectMu.Unlock()
	o.scrape.onLoops = append(slices.Clone(o.scrape.onLoops), f)
}

// Gauge registers a figure that f gives at each scrape.
func (o *Observer) Gauge(name, help string, f func() float64, labels ...string) {
	o.Collect(func(s *Sink) { s.Gauge(name, help, f(), labels...) })
}

// Counter registers a rising figure that f gives at each scrape.
func (o *Observer) Counter(name, help string, f func() float64, labels ...string) {
	o.Collect(func(s *Sink) { s.Counter(name, help, f(), labels...) })
}

// appendLabels writes label pairs without the braces.
func appendLabels(dst []byte, labels []string) []byte {
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, labels[i]...), '=', '"')
		dst = append(appendLabelValue(dst, labels[i+1]), '"')
	}
	return dst
}

// appendLabelValue escapes what the text format escapes, and makes UTF-8 of what is none.
func appendLabelValue(dst []byte, v string) []byte {
	v = strings.ToValidUTF8(v, "\uFFFD")
	for i := range len(v) {
		switch v[i] {
		case '\\', '"':
			dst = append(dst, '\\', v[i])
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, v[i])
		}
	}
	return dst
}
