package config

import (
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	f := func(text string, all, tunnels time.Duration) {
		t.Helper()
		cfg := mustParse(t, smallest+text+"\n")
		if want := (Drain{all, tunnels}); cfg.Drain != want {
			t.Errorf("%s: %+v, want %+v", text, cfg.Drain, want)
		}
		if again := mustParse(t, string(cfg.Dump())); again.Drain != cfg.Drain {
			t.Errorf("%s: dumped and read again it is %+v", text, again.Drain)
		}
	}
	f("drain: 0s", 0, 0)
	f("drain: 5m", 5*time.Minute, 5*time.Minute)
	f("drain: &d 5m", 5*time.Minute, 5*time.Minute)
	f("drain: {}", defaultDrain, defaultDrain)
	f("drain: { time: 5m }", 5*time.Minute, 5*time.Minute)
	f("drain: { tunnels: 1h }", defaultDrain, time.Hour)
	f("drain: { tunnels: 1h, time: 5m }", 5*time.Minute, time.Hour)
	f("drain: { time: 24h, tunnels: 24h }", 24*time.Hour, 24*time.Hour)
	f("drain: { time: 0s, tunnels: 0s }", 0, 0)
}
