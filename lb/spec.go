package lb

import (
	"errors"
	"strconv"
	"time"
)

// Algorithm is how one of several endpoints is chosen. The package's comment says which to choose.
type Algorithm uint8

const (
	RoundRobin Algorithm = iota
	LeastRequest
	PeakEWMA
	Random
	RingHash
	Maglev
	SourceIP
)

var algorithms = [...]string{"round_robin", "least_request", "peak_ewma", "random", "ring_hash", "maglev", "source_ip"}

func (a Algorithm) String() string {
	if int(a) < len(algorithms) {
		return algorithms[a]
	}
	return "algorithm " + strconv.Itoa(int(a))
}

// ParseAlgorithm finds an algorithm by its name in the configuration.
func ParseAlgorithm(name string) (a Algorithm, ok bool) {
	for i, n := range algorithms {
		if n == name {
			return Algorithm(i), true
		}
	}
	return 0, false
}

// Hashing says whether the algorithm goes by Attempt.Key.
func (a Algorithm) Hashing() bool { return a == RingHash || a == Maglev || a == SourceIP }

// Spec says how a pool is balanced. It has no defaults of its own: Defaults gives them.
type Spec struct {
	Algorithm Algorithm

	Choices  int     // least_request, peak_ewma: 2..16 endpoints are looked at, the best is taken
	FullScan bool    // least_request: all are looked at. The cost grows with the endpoints
	Bias     float64 // least_request, unequal weights: 0..8, the power of the requests in flight that divides a weight

	Decay   time.Duration // peak_ewma: 10ms..1h, in which a latency is forgotten to 1/e
	Penalty time.Duration // peak_ewma: 0..1h, the latency that a failed request counts as at least

	LoadFactor float64 // the hashing ones: 1.01..100 times its share is what an endpoint may have in flight; 0: no bound

	SlowStart SlowStart

	Zone        string  // the gateway's own; "": zones do not matter
	ZoneMinimum int     // endpoints of a priority, from 1, below which zones do not matter
	Overprovide float64 // 1..10: a priority is whole while this times its healthy share is
	Panic       float64 // 0..1, healthy share below which health is disregarded; 0: never
}

// Defaults are those of the systems that the algorithms come from: Envoy's for everything but peak_ewma's decay, which is
// Finagle's.
func Defaults(a Algorithm) Spec {
	return Spec{
		Algorithm:   a,
		Choices:     2,
		Bias:        1,
		Decay:       10 * time.Second,
		Penalty:     time.Second,
		SlowStart:   SlowStart{Aggression: 1, Minimum: 0.1},
		ZoneMinimum: 6,
		Overprovide: 1.4,
		Panic:       0.5,
	}
}

// Check says what is out of range.
func (s *Spec) Check() error {
	ranges := [...]struct {
		name          string
		value, lo, hi float64
	}{
		{"algorithm", float64(s.Algorithm), 0, float64(len(algorithms) - 1)},
		{"choices", float64(s.Choices), 2, 16},
		{"bias", s.Bias, 0, 8},
		{"decay", s.Decay.Seconds(), 0.01, 3600},
		{"penalty", s.Penalty.Seconds(), 0, 3600},
		{"slow start window", s.SlowStart.Window.Seconds(), 0, 24 * 3600},
		{"slow start aggression", s.SlowStart.Aggression, 0.01, 100},
		{"slow start minimum", s.SlowStart.Minimum, 0.001, 1},
		{"zone minimum", float64(s.ZoneMinimum), 1, maxEndpoints},
		{"overprovisioning factor", s.Overprovide, 1, 10},
		{"panic threshold", s.Panic, 0, 1},
	}
	for _, r := range ranges {
		if !(r.value >= r.lo && r.value <= r.hi) { // so that NaN is out of it
			return rangeError(r.name, r.value, r.lo, r.hi)
		}
	}
	if s.LoadFactor != 0 && !(s.LoadFactor >= 1.01 && s.LoadFactor <= 100) {
		return rangeError("load factor", s.LoadFactor, 1.01, 100)
	}
	return nil
}

func rangeError(name string, value, lo, hi float64) error {
	f := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	return errors.New("cannot balance: " + name + " " + f(value) + " is not within " + f(lo) + " and " + f(hi))
}
