package lb

import (
	"math"
	"time"
)

// SlowStart lets an endpoint that has become available begin with little, as Envoy's slow start mode: during the window its
// weight is multiplied by max(Minimum, (age/Window)^(1/Aggression)). It holds for all algorithms but the hashing ones, whose
// keys would move at every step.
type SlowStart struct {
	Window     time.Duration // 0: none; up to 24h
	Aggression float64       // 0.01..100; 1 rises evenly, above it faster at first
	Minimum    float64       // 0.001..1, share of the weight to begin with
}

// slowSteps is how many sets a window takes: at 1 and even rise each step is about 3 % of the weight.
const slowSteps = 32

// factor is what the weight of an endpoint is multiplied with when it has been available for age nanoseconds.
func (s *SlowStart) factor(age int64) float64 {
	if s.Window <= 0 || age >= int64(s.Window) {
		return 1
	}
	share := float64(max(age, 0)) / float64(s.Window)
	return max(s.Minimum, math.Pow(share, 1/s.Aggression))
}

// due is the instant at which an endpoint of that age needs another factor; 0: never.
func (s *SlowStart) due(now, age int64) int64 {
	if s.Window <= 0 || age >= int64(s.Window) {
		return 0
	}
	return now + max(int64(s.Window)/slowSteps, int64(10*time.Millisecond))
}
