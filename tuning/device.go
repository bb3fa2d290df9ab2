package tuning

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// opinion is what is thought of one network device.
type opinion struct {
	state   State
	current string
}

// eachDevice has every device with hardware behind it looked at. The worst opinion is the item's.
func eachDevice(look func(h *Host, device string) (o opinion, wanted string)) judge {
	return func(h *Host, _ string) verdict {
		v := verdict{state: Absent, current: "no network device"}
		var texts []string
		_, v.wanted = look(h, "")
		for _, device := range h.devices() {
			o, _ := look(h, device)
			if rank(o.state) > rank(v.state) {
				v.state = o.state
			}
			if o.current != "" {
				texts = append(texts, device+": "+o.current)
			}
		}
		if len(texts) > 0 {
			v.current = strings.Join(texts[:min(len(texts), 4)], "; ")
		} else if v.state == Unknown {
			v.current = "not readable"
		}
		return v
	}
}

// rank orders states by how much they say of an item that has several.
func rank(s State) int { return slices.Index([]State{Absent, Unknown, Good, Bad}, s) }

// steered counts the queues of a device whose file names processors.
func (h *Host) steered(device string, queues []string, file string) (n int) {
	for _, q := range queues {
		if text, err := h.line(path.Join("sys/class/net", device, "queues", q, file)); err == nil && masked(text) {
			n++
		}
	}
	return n
}

func receiveQueues(h *Host, device string) (opinion, string) {
	cpus := len(h.cpus())
	wanted := "a queue for each processor (ethtool -L), or rps_cpus set"
	queues := h.queues(device, "rx")
	if len(queues) == 0 || cpus == 0 {
		return opinion{state: Unknown}, wanted
	}
	spread := h.steered(device, queues, "rps_cpus")
	text := fmt.Sprintf("%d queues for %d processors, RPS on %d", len(queues), cpus, spread)
	return opinion{goodIf(len(queues) >= cpus || spread == len(queues)), text}, wanted
}

func transmitQueues(h *Host, device string) (opinion, string) {
	const wanted = "xps_cpus set on all transmit queues"
	queues := h.queues(device, "tx")
	switch {
	case len(queues) == 0:
		return opinion{state: Unknown}, wanted
	case len(queues) == 1:
		return opinion{Good, "one queue"}, wanted
	}
	n := h.steered(device, queues, "xps_cpus")
	return opinion{goodIf(n == len(queues)), fmt.Sprintf("set on %d of %d queues", n, len(queues))}, wanted
}

func interrupts(h *Host, device string) (opinion, string) {
	const wanted = "on as many processors as there are queues (irqbalance, /proc/irq/N/smp_affinity_list)"
	if device == "" {
		return opinion{}, wanted
	}
	on := map[int]bool{}
	n := 0
	for _, irq := range h.entries(path.Join("sys/class/net", device, "device/msi_irqs")) {
		text, err := h.line(path.Join("proc/irq", irq, "effective_affinity_list"))
		if err != nil {
			text, err = h.line(path.Join("proc/irq", irq, "smp_affinity_list"))
		}
		list, failed := parseList(text)
		if err != nil || failed != nil {
			continue
		}
		n++
		for _, cpu := range list {
			on[cpu] = true
		}
	}
	switch cpus := len(h.cpus()); {
	case n == 0:
		return opinion{state: Unknown}, wanted
	case n == 1 || cpus < 2:
		return opinion{Good, strconv.Itoa(n) + " interrupts"}, wanted
	default:
		return opinion{goodIf(len(on) > 1), fmt.Sprintf("%d interrupts on %d processors", n, len(on))}, wanted
	}
}

func receiveDrops(h *Host, device string) (opinion, string) {
	const wanted = "at most one in 100,000 packets (longer rings, more queues)"
	folder := path.Join("sys/class/net", device, "statistics")
	packets, err := h.number(path.Join(folder, "rx_packets"))
	missed, err2 := h.number(path.Join(folder, "rx_missed_errors"))
	if errors.Join(err, err2) != nil {
		return opinion{state: Unknown}, wanted
	}
	return opinion{goodIf(float64(missed) <= float64(packets)/100_000), fmt.Sprintf("%d of %d", missed, packets)}, wanted
}

// ask gives what a driver tells of its device; false: nothing.
func (h *Host) ask(device string) (Device, bool) {
	if h.Device == nil || device == "" {
		return Device{}, false
	}
	d, err := h.Device(device)
	return d, err == nil
}

func ring(h *Host, device string) (opinion, string) {
	const wanted = "at least 1024 descriptors, or all that the device has (ethtool -G)"
	const least = 1024
	d, ok := h.ask(device)
	if !ok {
		return opinion{state: Unknown}, wanted
	}
	if d.RxRingMost == 0 {
		return opinion{Good, "no ring to set"}, wanted
	}
	return opinion{goodIf(d.RxRing >= min(least, d.RxRingMost)), fmt.Sprintf("%d of %d", d.RxRing, d.RxRingMost)}, wanted
}

func offloads(h *Host, device string) (opinion, string) {
	const wanted = "gro and tso on (ethtool -K)"
	d, ok := h.ask(device)
	if !ok {
		return opinion{state: Unknown}, wanted
	}
	word := map[bool]string{true: "on", false: "off"}
	return opinion{goodIf(d.GRO && d.TSO), "gro " + word[d.GRO] + ", tso " + word[d.TSO]}, wanted
}

// softnet wants no packet to have been dropped between a device and its protocol.
func softnet(h *Host, _ string) verdict {
	const wanted = "0 (net.core.netdev_max_backlog)"
	text, err := h.read("proc/net/softnet_stat")
	if err != nil {
		return unreadable(err, wanted)
	}
	var dropped uint64
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			return unreadable(errMisshapen, wanted)
		}
		n, err := strconv.ParseUint(f[1], 16, 32)
		if err != nil {
			return unreadable(errMisshapen, wanted)
		}
		dropped += n
	}
	return verdict{state: goodIf(dropped == 0), current: strconv.FormatUint(dropped, 10), wanted: wanted}
}
