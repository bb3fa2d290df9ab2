package health

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"
)

// maxCanaryExportBytes bounds what ImportCanary reads.
const maxCanaryExportBytes = 4096

// maxWhyBytes bounds the text that is exported.
const maxWhyBytes = 512

// canaryExport is a canary's state as it is handed to another process. Times are durations, for clocks differ.
type canaryExport struct {
	Version int    `json:"version"`
	Steps   []int  `json:"steps"`
	State   string `json:"state"`
	Step    int    `json:"step"`
	AgeNS   int64  `json:"age_ns"`  // of the state or step
	HeldNS  int64  `json:"held_ns"` // at the step
	Why     string `json:"why"`
}

// Export gives the state for ImportCanary, in at most 4096 bytes. What requests came to is not in it: after an import it is
// counted anew, so that a step still needs MinRequests.
func (c *Canary) Export(now int64) []byte {
	why := c.why
	for len(why) > maxWhyBytes || !utf8.ValidString(why) {
		why = why[:min(len(why)-1, maxWhyBytes)]
	}
	b, err := json.Marshal(canaryExport{Version: 1, Steps: c.spec.Steps, State: c.state.String(), Step: c.step,
		AgeNS: max(now-c.since, 0), HeldNS: int64(c.heldAt(now)), Why: why})
	if err != nil {
		panic("BUG: health: cannot export canary: " + err.Error())
	}
	return b
}

// ImportCanary gives a canary of spec in the state that was exported. It fails if the state is not one that Export gives, or has
// other steps than spec; the caller then begins anew or stays with what it has. Other settings may differ.
func ImportCanary(spec CanarySpec, exported []byte, now int64) (*Canary, error) {
	c, err := NewCanary(spec, now)
	if err != nil {
		return nil, err
	}
	if len(exported) > maxCanaryExportBytes {
		return nil, fmt.Errorf("cannot import canary: more than %d bytes", maxCanaryExportBytes)
	}
	var x canaryExport
	d := json.NewDecoder(bytes.NewReader(exported))
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil {
		return nil, fmt.Errorf("cannot import canary: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("cannot import canary: something follows it")
	}
	state, err := x.check(spec.Steps)
	if err != nil {
		return nil, fmt.Errorf("cannot import canary: %w", err)
	}
	c.enter(x.Step, x.Why, now)
	c.held = time.Duration(x.HeldNS)
	if state == Promoted || state == Aborted {
		c.end(state, x.Why, now)
	}
	c.state, c.since = state, now-x.AgeNS
	return c, nil
}

func (x *canaryExport) check(steps []int) (CanaryState, error) {
	const most = int64(10 * 365 * 24 * time.Hour)
	switch {
	case x.Version != 1:
		return 0, fmt.Errorf("unknown version %d", x.Version)
	case !slices.Equal(x.Steps, steps):
		return 0, fmt.Errorf("its steps are %v, not %v", x.Steps, steps)
	case x.Step < 0 || x.Step >= len(steps):
		return 0, fmt.Errorf("there is no step %d", x.Step)
	case x.AgeNS < 0 || x.AgeNS > most || x.HeldNS < 0 || x.HeldNS > most:
		return 0, errors.New("its times cannot be")
	case len(x.Why) > maxWhyBytes || !utf8.ValidString(x.Why):
		return 0, errors.New("its reason cannot be")
	}
	for s := range canaryStates {
		if s.String() == x.State {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown state %q", x.State)
}
