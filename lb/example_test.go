package lb_test

import (
	"fmt"

	"github.com/sluice-gateway/sluice/lb"
)

// An endpoint's way: it is picked, fails, is ejected, and comes back. Time is the caller's; here it is a number.
func Example() {
	now := int64(0)
	endpoints := []*lb.Endpoint{
		{Address: "10.0.0.1:80", Weight: 1, Load: lb.NewLoad(now)},
		{Address: "10.0.0.2:80", Weight: 1, Load: lb.NewLoad(now)},
		{Address: "10.0.0.3:80", Weight: 2, Load: lb.NewLoad(now)},
	}
	spec := lb.Defaults(lb.Maglev)
	spec.LoadFactor = 1.25

	set := lb.NewSet(&spec, endpoints, now) // off the loops
	picker := lb.NewPicker(set, 1, nil)     // on each loop

	attempt := lb.Attempt{Key: lb.HashString("session 7"), Keyed: true}
	first := picker.Pick(&attempt)
	first.Load.Begin()
	first.Load.End(now, 5e6, true) // it failed after 5 ms
	attempt.Tried(first)
	second := picker.Pick(&attempt)
	fmt.Println("another endpoint:", second != first)

	if first.Load.Raise(lb.Ejected) {
		set = lb.NewSet(&spec, endpoints, now)
		picker = lb.NewPicker(set, 1, picker)
	}
	fmt.Println("endpoints in use:", set.Len())

	if first.Load.Clear(lb.Ejected, now+30e9) {
		set = lb.NewSet(&spec, endpoints, now+30e9)
		picker = lb.NewPicker(set, 1, picker)
	}
	again := lb.Attempt{Key: lb.HashString("session 7"), Keyed: true}
	fmt.Println("the session is back:", picker.Pick(&again) == first)
	// Output:
	// another endpoint: true
	// endpoints in use: 2
	// the session is back: true
}
