package lb

// level is the endpoints of one priority that are not drained or disabled.
type level struct {
	priority  int
	members   []candidate
	available int // members with no flag up

	share float64 // of the traffic, in proportion to those of the other levels
	panic bool    // it has a share, and health is disregarded
}

// spread gives each priority its share, as Envoy does, with fractions in place of its whole percents. A priority is as
// healthy as its available share times the overprovisioning factor, 1 at most. Traffic fills the priorities in order up to
// their health. If all together are less than whole, it follows their health, and a priority whose available share is
// below the threshold disregards health: to send everything to the few that are left would only take these down as well. If
// all do, or nothing at all is available, traffic follows the number of endpoints.
func spread(levels []level, overprovide, threshold float64) {
	const whole = 1 - 1e-9 // sums of fractions
	total, members := 0.0, 0
	for i := range levels {
		total += levels[i].health(overprovide)
		members += len(levels[i].members)
	}
	everywhere := threshold > 0
	for i := range levels {
		l := &levels[i]
		l.panic = threshold > 0 && total < whole && (total == 0 || float64(l.available) < threshold*float64(len(l.members)))
		everywhere = everywhere && l.panic
	}
	left := 1.0
	for i := range levels {
		l := &levels[i]
		switch {
		case everywhere:
			l.share = float64(len(l.members)) / float64(members)
		case total > 0:
			l.share = min(left, l.health(overprovide))
		}
		left = max(0, left-l.share)
		if left < 1-whole {
			left = 0
		}
		l.panic = l.panic && l.share > 0
	}
}

func (l *level) health(overprovide float64) float64 {
	return min(1, overprovide*float64(l.available)/float64(len(l.members)))
}
