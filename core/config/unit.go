package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads 10s, 500ms, 1m30s or a plain 0. The hint says what would be right.
func parseDuration(text string) (d time.Duration, hint string, ok bool) {
	if text == "0" {
		return 0, "", true
	}
	if isDigits(text) {
		return 0, fmt.Sprintf("write the unit: %ss, %sms or %sm", clip(text), clip(text), clip(text)), false
	}
	if strings.Trim(text, "0123456789.hmsu") == "" && strings.ContainsAny(text, "hms") {
		if d, err := time.ParseDuration(text); err == nil {
			return d, "", true
		}
	}
	number, unit := splitUnit(text)
	if _, err := strconv.ParseFloat(number, 64); err == nil && len(number) < 10 {
		switch strings.ToLower(unit) {
		case "s", "sec", "secs", "second", "seconds":
			return 0, fmt.Sprintf("write %ss", number), false
		case "ms", "msec", "msecs", "millisecond", "milliseconds":
			return 0, fmt.Sprintf("write %sms", number), false
		case "m", "min", "mins", "minute", "minutes":
			return 0, fmt.Sprintf("write %sm", number), false
		case "h", "hr", "hour", "hours":
			return 0, fmt.Sprintf("write %sh", number), false
		case "d", "day", "days":
			if days, err := strconv.Atoi(number); err == nil {
				return 0, fmt.Sprintf("write %dh", int64(days)*24), false
			}
		}
	}
	return 0, "a duration is written as 10s, 500ms or 1m30s", false
}

// formatDuration writes what parseDuration reads: 1m30s, and not 90s or 1m30.000s.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	s = strings.ReplaceAll(s, "µs", "us")
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseSize reads 512B, 32KiB, 10MB or a plain 0 as a number of bytes.
func parseSize(text string) (bytes int64, hint string, ok bool) {
	if text == "0" {
		return 0, "", true
	}
	number, unit := splitUnit(text)
	if !isDigits(number) {
		return 0, "a size is written as 512B, 32KiB or 10MB", false
	}
	factor := unitBytes(unit)
	if factor != 0 && number+unit != text {
		return 0, "write " + clip(number) + unit, false
	}
	if factor == 0 {
		short := clip(number)
		switch strings.ToLower(strings.TrimSuffix(strings.ToLower(unit), "b")) {
		case "":
			return 0, fmt.Sprintf("write the unit: %sB, %sKiB or %sMiB", short, short, short), false
		case "k", "ki":
			return 0, fmt.Sprintf("write %sKiB", short), false
		case "m", "mi":
			return 0, fmt.Sprintf("write %sMiB", short), false
		case "g", "gi":
			return 0, fmt.Sprintf("write %sGiB", short), false
		}
		return 0, "a size is written as 512B, 32KiB or 10MB", false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return math.MaxInt64, "", true // a bound refuses it
	}
	return n * factor, "", true
}

func unitBytes(unit string) int64 {
	switch unit {
	case "B":
		return 1
	case "KiB":
		return 1 << 10
	case "MiB":
		return 1 << 20
	case "GiB":
		return 1 << 30
	case "kB", "KB":
		return 1e3
	case "MB":
		return 1e6
	case "GB":
		return 1e9
	}
	return 0
}

// formatSize writes what parseSize reads, in the largest unit that keeps it whole.
func formatSize(n int64) string {
	switch {
	case n == 0:
		return "0"
	case n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "GiB"
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "MiB"
	case n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "KiB"
	}
	return strconv.FormatInt(n, 10) + "B"
}

// splitUnit cuts "10 MiB" into "10" and "MiB".
func splitUnit(text string) (number, unit string) {
	i := 0
	for i < len(text) && (text[i] >= '0' && text[i] <= '9' || text[i] == '.') {
		i++
	}
	return text[:i], strings.TrimSpace(text[i:])
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
