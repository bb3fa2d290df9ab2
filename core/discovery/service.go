package discovery

import (
	"cmp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxWeight is the largest weight of a Target.
const maxWeight = 1000

// service is an SRV record: a host that offers the service.
type service struct {
	host     string // lower case, without the last dot
	port     uint16
	weight   int // 1..1000
	priority int // from 0, without gaps
}

// arrange makes services of the SRV records of a name, the most important first: priorities become 0, 1, 2 in their order, weights fit
// into 1..1000 in proportion to others of their priority. A weight of 0 is a very small chance where others have more (RFC 2782).
func arrange(records []record) (list []service) {
	for i := range records {
		s := records[i].srv
		if s == nil || s.Port == 0 || s.Target == "." {
			continue
		}
		host := strings.ToLower(strings.TrimSuffix(s.Target, "."))
		if !isHost(host) {
			continue
		}
		list = append(list, service{host, s.Port, int(s.Weight), int(s.Priority)})
	}
	slices.SortFunc(list, func(a, b service) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), strings.Compare(a.host, b.host), cmp.Compare(a.port, b.port), cmp.Compare(b.weight, a.weight))
	})
	list = slices.CompactFunc(list, func(a, b service) bool { return a.priority == b.priority && a.host == b.host && a.port == b.port })
	list = list[:min(len(list), MaxTargets)]
	rank := 0
	for rest := list; len(rest) > 0; rank++ {
		n := 1
		for n < len(rest) && rest[n].priority == rest[0].priority {
			n++
		}
		weigh(rest[:n])
		for i := range rest[:n] {
			rest[i].priority = rank
		}
		rest = rest[n:]
	}
	return list
}

// weigh fits the weights of one priority.
func weigh(list []service) {
	low, high := list[0].weight, list[0].weight
	for _, s := range list {
		low, high = min(low, s.weight), max(high, s.weight)
	}
	for i := range list {
		s := &list[i]
		switch {
		case high == 0:
			s.weight = 1
		case low == 0 || high > maxWeight: // so that 0 is little beside 1
			s.weight = max(1, (s.weight*maxWeight+high/2)/high)
		}
	}
}

// isHost says whether a target is a name that can be asked for, and printed: letters, digits, hyphens and underscores (RFC 1123, 2.1,
// and what is found besides).
func isHost(name string) bool {
	if _, ok := dns.IsDomainName(name); !ok || name == "" || len(name) > 253 {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
