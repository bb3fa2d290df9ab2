package introspect

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// TestKeptUntil: an answer is kept as long as it may be, also of a token that expires later than nanoseconds can say.
func TestKeptUntil(t *testing.T) {
	d, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Spec{TTL: time.Minute}, nil, core.NewConsumers(d), make([]Counts, 1))
	now := time.Unix(1_900_000_000, 0)
	for exp, want := range map[string]time.Duration{"1900000001": time.Second, "1900000060": time.Minute, "9999999999": time.Minute, "253402300799": time.Minute, "1099511627776": time.Minute} {
		v := p.judge(core.Claims{"active": true, "exp": json.Number(exp)}, d, now)
		if v == nil || v.err != nil {
			t.Fatalf("exp %s: %+v", exp, v)
		}
		if got := time.Duration(v.until - now.UnixNano()); got != want {
			t.Errorf("exp %s: kept for %v, want %v", exp, got, want)
		}
	}
}
