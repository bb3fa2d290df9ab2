package compile

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// TestRevoker: revocations end by themselves, are bounded, and are looked for without memory.
func TestRevoker(t *testing.T) {
	var r Revoker
	now := time.Unix(1_000_000, 0)
	b := core.Bearer{Revoked: &r.inUse}
	g := core.Grant{ID: "a", Subject: "s", Issued: now.Unix()}
	f := func(at time.Time, want bool) {
		t.Helper()
		if got := b.Withdrawn(&g, at.UnixNano()); got != want {
			t.Errorf("at %v: %v", at, got)
		}
	}
	f(now, false)
	if err := r.Revoke("jti", []string{"a"}, time.Minute, now); err != nil {
		t.Fatal(err)
	}
	f(now.Add(59*time.Second), true)
	f(now.Add(time.Minute), false)
	if err := r.Revoke("sub", []string{"s"}, time.Hour, now.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if all := r.All(now.Add(2 * time.Minute)); len(all) != 1 || all[0].Kind != "sub" {
		t.Errorf("%+v", all)
	}
	f(now.Add(3*time.Minute), true)
	if n := testing.AllocsPerRun(100, func() { b.Withdrawn(&g, now.UnixNano()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	g.Issued = now.Add(3 * time.Minute).Unix()
	f(now.Add(4*time.Minute), false)
	b.Revoked.Switch(nil)
	var many []string
	for i := range maxRevocations {
		many = append(many, fmt.Sprint(i))
	}
	if err := r.Revoke("jti", many, time.Hour, now); err != nil {
		t.Fatal(err)
	}
	if err := r.Revoke("jti", []string{"one more"}, time.Hour, now); err != errRevocations {
		t.Errorf("%v", err)
	}
	if err := r.Revoke("jti", []string{"one more"}, time.Hour, now.Add(time.Hour)); err != nil {
		t.Errorf("those before are over: %v", err)
	}
}
