package lb

// localize shares the traffic of one priority among its zones and scales the weights of the members accordingly. It is
// Envoy's zone-aware routing for gateways that are spread evenly over the zones, about which a single gateway knows nothing
// better: with k zones that have endpoints, each zone's gateways bring 1/k of the traffic.
//
//   - If the gateway's zone has at least 1/k of the weight, all stays there.
//   - Else as much stays as its endpoints can take of what its gateways bring: its weight divided by 1/k. The rest goes to the
//     zones that have more than 1/k, in proportion to what they have above it.
//
// So every endpoint gets by its weight, as without zones, and as little as can be leaves its zone. Without an endpoint in
// the gateway's zone, or with fewer than minimum in all, zones do not matter.
func localize(members []candidate, own string, minimum int) {
	if own == "" || len(members) < minimum {
		return
	}
	capacity, total := map[string]float64{}, 0.0
	for _, m := range members {
		capacity[m.endpoint.Zone] += m.weight
		total += m.weight
	}
	if _, ok := capacity[own]; !ok || len(capacity) == 1 {
		return
	}
	even := total / float64(len(capacity))
	local := min(1, capacity[own]/even)
	above := 0.0
	for zone, c := range capacity {
		if zone != own {
			above += max(0, c-even)
		}
	}
	if above == 0 { // nobody has more than its part: rounding
		local = 1
	}
	for i := range members {
		m := &members[i]
		zone := m.endpoint.Zone
		share := local
		if zone != own {
			share = 0
			if local < 1 {
				share = (1 - local) * max(0, capacity[zone]-even) / above
			}
		}
		m.weight *= share * total / capacity[zone]
		m.abroad = zone != own
	}
}
