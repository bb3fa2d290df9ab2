package tuning

import (
	"io/fs"
	"math"
	"path"
	"strings"
)

// maxDepth bounds the levels of cgroups that are asked: deeper trees are cut off at their leaves.
const maxDepth = 64

// groups are the folders of this process's cgroups that may limit a resource, the innermost first: of the unified hierarchy
// (cgroup v2) and of a controller's own (v1).
func (h *Host) groups(controller string) (unified, own []string) {
	text, err := h.read("proc/self/cgroup")
	if err != nil {
		return nil, nil
	}
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		names, at, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		switch {
		case names == "":
			unified = append(levels("sys/fs/cgroup", at), levels("sys/fs/cgroup/unified", at)...)
		case contains(names, controller):
			own = levels(path.Join("sys/fs/cgroup", controller), at)
		}
	}
	return unified, own
}

// levels are the folder of a group and those above it up to the root. In a container the group's own path may not exist below the
// mount, whose root is the group then: what is not there is passed over by those who ask.
func levels(root, at string) (folders []string) {
	at = path.Clean("/" + at)
	for range maxDepth {
		if folder := path.Join(root, at); fs.ValidPath(folder) {
			folders = append(folders, folder)
		}
		if at == "/" {
			break
		}
		at = path.Dir(at)
	}
	return folders
}

func contains(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// Memory is how many bytes the process and the others in its cgroup may use: the smallest limit of its cgroups where one is below
// what the host has, else what the host has. from is "cgroup" or "host"; bytes is 0 where neither tells.
func (h *Host) Memory() (bytes uint64, from string) {
	if text, err := h.read("proc/meminfo"); err == nil {
		if kib, err := field(text, "MemTotal:"); err == nil && kib < 1<<50 {
			bytes, from = kib<<10, "host"
		}
	}
	least := func(folders []string, file string) {
		for _, folder := range folders {
			if n, err := h.number(path.Join(folder, file)); err == nil && n > 0 && n < 1<<60 && (bytes == 0 || n < bytes) {
				bytes, from = n, "cgroup"
			}
		}
	}
	unified, own := h.groups("memory")
	least(unified, "memory.max")
	least(own, "memory.limit_in_bytes")
	return bytes, from
}

// CPUQuota is how many processors' time the cgroups of the process leave it; 0: as much as there is.
func (h *Host) CPUQuota() (quota float64) {
	least := func(used, period uint64) {
		if period == 0 || used == 0 {
			return
		}
		if q := float64(used) / float64(period); quota == 0 || q < quota {
			quota = q
		}
	}
	unified, own := h.groups("cpu")
	for _, folder := range unified {
		text, err := h.line(path.Join(folder, "cpu.max"))
		if f := strings.Fields(text); err == nil && len(f) == 2 {
			used, err := parseNumber(f[0]) // "max": no limit
			period, err2 := parseNumber(f[1])
			if err == nil && err2 == nil {
				least(used, period)
			}
		}
	}
	for _, folder := range own {
		used, err := h.number(path.Join(folder, "cpu.cfs_quota_us")) // -1: no limit
		period, err2 := h.number(path.Join(folder, "cpu.cfs_period_us"))
		if err == nil && err2 == nil {
			least(used, period)
		}
	}
	return quota
}

// QuotaCPUs is CPUQuota in whole processors, as the runtime rounds it for GOMAXPROCS: up, and to two at least. 0: there is no quota.
func (h *Host) QuotaCPUs() int {
	quota := h.CPUQuota()
	if quota <= 0 {
		return 0
	}
	return max(2, int(math.Ceil(min(quota, maxCPUs))))
}

// GroupMemory is what is used of the cgroup that is nearest to its limit of memory, without what the kernel would drop at once. ok is false
// where no cgroup has a limit.
func (h *Host) GroupMemory() (used, limit uint64, ok bool) {
	unified, own := h.groups("memory")
	look := func(folders []string, most, current, inactive string) {
		for _, folder := range folders {
			l, err := h.number(path.Join(folder, most))
			if err != nil || l == 0 || l >= 1<<60 {
				continue
			}
			u, err := h.number(path.Join(folder, current))
			if err != nil {
				continue
			}
			if text, err := h.read(path.Join(folder, "memory.stat")); err == nil {
				if n, err := field(text, inactive); err == nil {
					u -= min(n, u)
				}
			}
			if !ok || float64(u)/float64(l) > float64(used)/float64(limit) {
				used, limit, ok = u, l, true
			}
		}
	}
	look(unified, "memory.max", "memory.current", "inactive_file")
	look(own, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
	return used, limit, ok
}

// throttled is the share of the periods in which the process's cgroups were stopped because their time was used up.
func (h *Host) throttled() (share float64, periods uint64, err error) {
	unified, own := h.groups("cpu")
	err = fs.ErrNotExist
	for _, folder := range append(unified, own...) {
		text, failed := h.read(path.Join(folder, "cpu.stat"))
		if failed != nil {
			continue
		}
		n, failed := field(text, "nr_periods")
		t, failed2 := field(text, "nr_throttled")
		if failed != nil || failed2 != nil {
			continue
		}
		err = nil
		if n > 0 && float64(t)/float64(n) >= share {
			share, periods = float64(t)/float64(n), n
		}
	}
	return share, periods, err
}
