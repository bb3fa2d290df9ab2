// Package tuning fits the process to its host and tells what of the host does not fit a gateway: a report of the kernel's settings
// and of the hardware, what may be changed of that and taken back, socket options, the limits of memory and descriptors, and the
// watermark above which a process that is short of memory takes no more connections. It knows no HTTP.
//
// Everything about the host is read from a folder that the caller names, so that recorded /proc and /sys trees do in the place of
// the real ones. What is read is bounded, and whatever does not look as the kernel writes it counts as not readable.
package tuning

// Severity is how much it matters that something of the host is not as wanted.
type Severity uint8

const (
	Low    Severity = iota // costs little, or seldom
	Medium                 // costs latency or capacity under load
	High                   // loses connections or whole features
)

func (s Severity) String() string { return [...]string{"low", "medium", "high"}[s] }

// MarshalText writes the severity as its word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// State is what came of looking at an item.
type State uint8

const (
	Good    State = iota // as wanted
	Bad                  // not as wanted
	Unknown              // the host does not tell: an older kernel, or a container that hides it
	Absent               // there is nothing of the kind, so that nothing is wanted
)

func (s State) String() string { return [...]string{"good", "bad", "unknown", "absent"}[s] }

// MarshalText writes the state as its word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one item of a report.
type Finding struct {
	ID       string   `json:"id"` // of a sysctl its name
	State    State    `json:"state"`
	Severity Severity `json:"severity"` // when it is bad
	Current  string   `json:"current"`  // as the kernel writes it, on one line; "" where it is not known
	Wanted   string   `json:"wanted"`
	Why      string   `json:"why"` // one line, with its source
	// Set is the value that Apply would give the sysctl; "": nothing is to be changed, or not by us.
	Set string `json:"set,omitempty"`
}

// Report is what all items came to, the bad ones first, by severity.
type Report struct {
	Kernel      string    `json:"kernel"`
	CPUs        int       `json:"cpus"`         // that the process may run on
	CPUQuota    float64   `json:"cpu_quota"`    // in processors, by its cgroups; 0: none
	MemoryBytes uint64    `json:"memory_bytes"` // of the smallest of its cgroups' limits, else of the host; 0: not known
	MemoryFrom  string    `json:"memory_from"`  // "cgroup" or "host"
	Items       []Finding `json:"items"`
}

// Bad counts the items that are not as wanted.
func (r *Report) Bad() (n int) {
	for i := range r.Items {
		if r.Items[i].State == Bad {
			n++
		}
	}
	return n
}
