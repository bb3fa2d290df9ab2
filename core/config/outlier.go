package config

import (
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Outlier is when endpoints of an upstream are ejected for what requests came to. Each setting has the name and the meaning that it
// has in Envoy (config.cluster.v3.OutlierDetection), but for keep_last, which is ours.
type Outlier struct {
	Consecutive5xx            int           // consecutive_5xx: 0..10000; 5. 0: never by them
	ConsecutiveGatewayFailure int           // consecutive_gateway_failure: 0..10000; 5
	ConsecutiveLocalOrigin    int           // consecutive_local_origin_failure: 0..10000; 5. Only if split
	SplitLocalOrigin          bool          // split_external_local_origin_errors; false
	Interval                  time.Duration // interval: 100ms..1h; 30s
	BaseEjectionTime          time.Duration // base_ejection_time: 100ms..24h; 30s
	MaxEjectionTime           time.Duration // max_ejection_time: up to 24h and not below base_ejection_time; 5m
	MaxEjectionTimeJitter     time.Duration // max_ejection_time_jitter: 0..1h; 0
	MaxEjectionPercent        int           // max_ejection_percent: whole percent; 50%
	AlwaysEjectOne            bool          // always_eject_one_host; false
	KeepLast                  bool          // keep_last: the last endpoint that serves is not ejected; true
	CheckUnejects             bool          // successful_active_health_check_uneject_host; true
	SuccessRateMinHosts       int           // success_rate_minimum_hosts: 1..100000; 5
	SuccessRateVolume         int           // success_rate_request_volume: 1..1e9; 100
	SuccessRateStdev          int           // success_rate_stdev_factor: thousandths of a standard deviation, 0..100000; 1900
	FailurePercentThreshold   int           // failure_percentage_threshold: 1%..100%; 85%
	FailurePercentMinHosts    int           // failure_percentage_minimum_hosts: 1..100000; 5
	FailurePercentVolume      int           // failure_percentage_request_volume: 1..1e9; 50
	Enforcing                 [len(enforcing)]int
}

// enforcing are the settings of how likely, in whole percent, a detection ejects, in the order of Outlier.Enforcing.
var enforcing = [...]string{"enforcing_consecutive_5xx", "enforcing_consecutive_gateway_failure", "enforcing_consecutive_local_origin_failure",
	"enforcing_success_rate", "enforcing_local_origin_success_rate", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin"}

const outlierKeys = "consecutive_5xx consecutive_gateway_failure consecutive_local_origin_failure split_external_local_origin_errors interval " +
	"base_ejection_time max_ejection_time max_ejection_time_jitter max_ejection_percent always_eject_one_host keep_last " +
	"successful_active_health_check_uneject_host success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor " +
	"failure_percentage_threshold failure_percentage_minimum_hosts failure_percentage_request_volume enforcing_consecutive_5xx " +
	"enforcing_consecutive_gateway_failure enforcing_consecutive_local_origin_failure enforcing_success_rate " +
	"enforcing_local_origin_success_rate enforcing_failure_percentage enforcing_failure_percentage_local_origin"

func defaultOutlier() *Outlier {
	return &Outlier{
		Consecutive5xx: 5, ConsecutiveGatewayFailure: 5, ConsecutiveLocalOrigin: 5,
		Interval: 30 * time.Second, BaseEjectionTime: 30 * time.Second, MaxEjectionTime: 5 * time.Minute,
		MaxEjectionPercent: 50, KeepLast: true, CheckUnejects: true,
		SuccessRateMinHosts: 5, SuccessRateVolume: 100, SuccessRateStdev: 1900,
		FailurePercentThreshold: 85, FailurePercentMinHosts: 5, FailurePercentVolume: 50,
		Enforcing: [...]int{100, 0, 100, 100, 100, 0, 0},
	}
}

// outlier reads on, off, or a map.
func (d *decoder) outlier(key string, n ast.Node) *Outlier {
	o := defaultOutlier()
	if on, short := d.onOrOff(key, n); short {
		if !on {
			return nil
		}
		return o
	}
	d.mapping(key, n, outlierKeys, func(key string, _, v ast.Node) bool {
		const hosts, volume = 100_000, 1_000_000_000
		switch key {
		case "consecutive_5xx":
			d.integer(key, v, 0, 10_000, &o.Consecutive5xx)
		case "consecutive_gateway_failure":
			d.integer(key, v, 0, 10_000, &o.ConsecutiveGatewayFailure)
		case "consecutive_local_origin_failure":
			d.integer(key, v, 0, 10_000, &o.ConsecutiveLocalOrigin)
		case "split_external_local_origin_errors":
			d.boolean(key, v, &o.SplitLocalOrigin)
		case "always_eject_one_host":
			d.boolean(key, v, &o.AlwaysEjectOne)
		case "keep_last":
			d.boolean(key, v, &o.KeepLast)
		case "successful_active_health_check_uneject_host":
			d.boolean(key, v, &o.CheckUnejects)
		case "success_rate_minimum_hosts":
			d.integer(key, v, 1, hosts, &o.SuccessRateMinHosts)
		case "success_rate_request_volume":
			d.integer(key, v, 1, volume, &o.SuccessRateVolume)
		case "success_rate_stdev_factor":
			d.integer(key, v, 0, 100_000, &o.SuccessRateStdev)
		case "failure_percentage_threshold":
			d.wholePercent(key, v, 1, &o.FailurePercentThreshold)
		case "failure_percentage_minimum_hosts":
			d.integer(key, v, 1, hosts, &o.FailurePercentMinHosts)
		case "failure_percentage_request_volume":
			d.integer(key, v, 1, volume, &o.FailurePercentVolume)
		default:
			return d.ejection(key, v, o)
		}
		return true
	})
	d.checkOutlier(n, o)
	return o
}

// ejection reads what is said of an ejection itself.
func (d *decoder) ejection(key string, v ast.Node, o *Outlier) bool {
	switch key {
	case "interval":
		d.durationUpTo(key, v, 100*time.Millisecond, time.Hour, &o.Interval)
	case "base_ejection_time":
		d.duration(key, v, 100*time.Millisecond, &o.BaseEjectionTime)
	case "max_ejection_time":
		d.duration(key, v, 100*time.Millisecond, &o.MaxEjectionTime)
	case "max_ejection_time_jitter":
		d.durationUpTo(key, v, 0, time.Hour, &o.MaxEjectionTimeJitter)
	case "max_ejection_percent":
		d.wholePercent(key, v, 0, &o.MaxEjectionPercent)
	default:
		i := slices.Index(enforcing[:], key)
		if i < 0 {
			return false
		}
		d.wholePercent(key, v, 0, &o.Enforcing[i])
	}
	return true
}

// checkOutlier finds settings that contradict each other, and those that are never looked at.
func (d *decoder) checkOutlier(n ast.Node, o *Outlier) {
	given := d.givenIn(n)
	if o.MaxEjectionTime < o.BaseEjectionTime {
		if at, ok := given["max_ejection_time"]; ok {
			d.problemAt(at, "", "%q is below %q", "max_ejection_time", "base_ejection_time")
		}
		o.MaxEjectionTime = o.BaseEjectionTime // Envoy's rule for who says nothing of the maximum
	}
	for _, key := range []string{"consecutive_local_origin_failure", enforcing[2], enforcing[4], enforcing[6]} {
		if at, ok := given[key]; ok && !o.SplitLocalOrigin {
			d.problemAt(at, "", "%q is of no use without %q", key, "split_external_local_origin_errors")
		}
	}
	if at, ok := given["always_eject_one_host"]; ok && o.AlwaysEjectOne && o.MaxEjectionPercent == 100 {
		d.problemAt(at, "", "%q is of no use: all may be ejected", "always_eject_one_host")
	}
	never := true
	for _, percent := range o.Enforcing {
		never = never && percent == 0
	}
	if len(given) > 0 && never {
		d.problem(n, "write outlier: off", "no detection ever ejects: each of %q is 0%%", "enforcing_*")
	}
}

// givenIn is where the keys of a map stand.
func (d *decoder) givenIn(n ast.Node) map[string]Pos {
	given := map[string]Pos{}
	if n = d.resolve(n); isMap(n) {
		values, _ := d.pairs("", n)
		for _, pair := range values {
			given[pair.Key.GetToken().Value] = d.at(pair.Key)
		}
	}
	return given
}

// onOrOff reads on or off, or finds that n is a map, which is the long form.
func (d *decoder) onOrOff(key string, n ast.Node) (on, short bool) {
	switch n = d.resolve(n); {
	case n == nil:
		return false, true
	case isMap(n):
		return true, false
	}
	word := "off"
	d.word(key, n, "on off", &word)
	return word == "on", true
}

func (w *dumper) outlier(o *Outlier) {
	if o == nil {
		return
	}
	w.block("outlier:", func() {
		w.line("consecutive_5xx: %d", o.Consecutive5xx)
		w.line("consecutive_gateway_failure: %d", o.ConsecutiveGatewayFailure)
		if o.SplitLocalOrigin {
			w.line("split_external_local_origin_errors: true")
			w.line("consecutive_local_origin_failure: %d", o.ConsecutiveLocalOrigin)
		}
		w.line("interval: %s", formatDuration(o.Interval))
		w.line("base_ejection_time: %s", formatDuration(o.BaseEjectionTime))
		w.line("max_ejection_time: %s", formatDuration(o.MaxEjectionTime))
		w.line("max_ejection_time_jitter: %s", formatDuration(o.MaxEjectionTimeJitter))
		w.line("max_ejection_percent: %d%%", o.MaxEjectionPercent)
		w.line("always_eject_one_host: %t", o.AlwaysEjectOne)
		w.line("keep_last: %t", o.KeepLast)
		w.line("successful_active_health_check_uneject_host: %t", o.CheckUnejects)
		w.line("success_rate_minimum_hosts: %d", o.SuccessRateMinHosts)
		w.line("success_rate_request_volume: %d", o.SuccessRateVolume)
		w.line("success_rate_stdev_factor: %d", o.SuccessRateStdev)
		w.line("failure_percentage_threshold: %d%%", o.FailurePercentThreshold)
		w.line("failure_percentage_minimum_hosts: %d", o.FailurePercentMinHosts)
		w.line("failure_percentage_request_volume: %d", o.FailurePercentVolume)
		for i, key := range enforcing {
			if o.SplitLocalOrigin || i != 2 && i != 4 && i != 6 {
				w.line("%s: %d%%", key, o.Enforcing[i])
			}
		}
	})
}
