package upstream

import "github.com/sluice-gateway/sluice/health"

// holds is an answered exchange as its upstream's budget counts it: active until its way has ended. The zero holds is of none.
type holds struct {
	budget *health.Budget
	loop   int
}

// begin takes over what b has counted on s's loop.
func (h *holds) begin(b *health.Budget, s *share) { *h = holds{b, s.worker.Loop.Index()} }

// end may be called again, without effect.
func (h *holds) end() {
	if b := h.budget; b != nil {
		h.budget = nil
		b.End(h.loop)
	}
}
