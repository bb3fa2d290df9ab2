package observe

// Requests is the number of requests that have ended since the start, as far as listeners are still known. It waits for the
// loops and must not be called on one; ok is false when one did not answer in time.
func (o *Observer) Requests() (total uint64, ok bool) {
	for i, l := range o.loops {
		c, n := o.cells[i], new(uint64) // the loop may write to n after Do has given up
		err := l.Do(scrapeTimeout, func() {
			for _, cell := range c.listeners {
				if cell == nil {
					continue
				}
				for _, requests := range cell.requests {
					*n += requests
				}
			}
		})
		if err != nil {
			return 0, false
		}
		total += *n
	}
	return total, true
}
