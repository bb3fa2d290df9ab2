package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestReloadsAreSpread: all reloads are made, however many upgrades they follow.
func TestReloadsAreSpread(t *testing.T) {
	for _, o := range []options{{upgrades: 20, reloads: 200}, {upgrades: 3, reloads: 10}, {upgrades: 7, reloads: 2}, {upgrades: 1}} {
		sum, most := 0, 0
		for i := range o.upgrades {
			n := o.reloadsAfter(i)
			sum, most = sum+n, max(most, n)
		}
		if sum != o.reloads || most > o.reloads/o.upgrades+1 {
			t.Errorf("%d reloads, up to %d after one of %d upgrades, want %d", sum, most, o.upgrades, o.reloads)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-n", "0"}, {"-reloads", "-1"}, {"-clients", "0"}, {"-clients", "257"}, {"-think", "-1s"}, {"-drain", "1ms"}, {"x"}} {
		if code := realMain(args, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%q: exit %d", args, code)
		}
	}
}

// TestReport: clients of a kind are summed, and what a peer holds is shown before, after the first upgrade, after the last, and at its most.
func TestReport(t *testing.T) {
	kinds := allKinds(&peer{}, &identity{}, 2)
	if len(kinds) != 6 {
		t.Errorf("%d kinds", len(kinds))
	}
	for _, k := range kinds {
		k.all[0].made, k.all[1].made = 3, 4
	}
	last := &kinds[5]
	last.all[1].failed, last.all[1].example = 2, errors.New("reset")
	var b strings.Builder
	r := result{peer: "p", upgrades: 2, reloads: 0, upgrading: 300 * time.Millisecond, kinds: kinds, looks: []look{{1024, 9}, {2048, 8}, {4096, 11}, {3072, 10}}}
	if err := report(&b, []result{r}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if want := "| p | 2 | 150 | 0 | - | 0 of 7 | 0 of 7 | 0 of 7 | 0 of 7 | 0 of 7 | 2 of 9 | 1.0 / 2.0 / 3.0 / 4.0 | 9 / 8 / 10 / 11 |"; lines[2] != want {
		t.Errorf("%s\nwant\n%s", lines[2], want)
	}
	if strings.Count(lines[0], "|") != strings.Count(lines[1], "|") || strings.Count(lines[0], "|") != strings.Count(lines[2], "|") {
		t.Errorf("the columns differ:\n%s", b.String())
	}
	if !strings.Contains(b.String(), "p, WebSocket TLS, for example: reset") {
		t.Error(b.String())
	}
}
