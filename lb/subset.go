package lb

// Subset gives those of endpoints that have all labels; each subset is balanced on its own. If there is none it gives all
// with otherwise, else nothing.
func Subset(endpoints []*Endpoint, labels map[string]string, otherwise bool) []*Endpoint {
	var subset []*Endpoint
	for _, e := range endpoints {
		if e.labelled(labels) {
			subset = append(subset, e)
		}
	}
	if len(subset) == 0 && otherwise {
		return endpoints
	}
	return subset
}

func (e *Endpoint) labelled(labels map[string]string) bool {
	for name, want := range labels {
		if have, ok := e.Labels[name]; !ok || have != want {
			return false
		}
	}
	return true
}
