package server

import (
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/core/upstream"
)

// collectRetries tells of the repeated attempts that a loop has made at an upstream, and of those that it has not.
func collectRetries(u *upstream.Upstream, index int, sink *observe.Sink) {
	counts := u.RetryCounts(index)
	if made, won := counts.Hedges(); made > 0 {
		sink.Counter("sluice_hedges_won_total", "Attempts beside others that were answered first.", float64(won), "upstream", u.Name)
	}
	counts.Each(func(cause string, n uint64) {
		sink.Counter("sluice_retries_by_cause_total", "Attempts beyond the first, by what became of the one before.", float64(n), "upstream", u.Name, "cause", cause)
	}, func(reason string, n uint64) {
		sink.Counter("sluice_retries_denied_total", "Attempts that the retry policy wants and that were not made, by why.", float64(n), "upstream", u.Name, "reason", reason)
	})
}
