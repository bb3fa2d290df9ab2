package leak

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Check(m.Run)) }

// wait is a goroutine of this module.
func wait(end <-chan struct{}) { <-end }

// TestLeft finds a goroutine and a descriptor while they are there, and nothing when they have ended in time.
func TestLeft(t *testing.T) {
	before := Look()
	if left := before.Left(0); left != "" {
		t.Errorf("nothing was begun, left is %s", left)
	}
	end := make(chan struct{})
	go wait(end)
	if left := before.Left(0); !strings.Contains(left, "leak.wait(") {
		t.Errorf("a goroutine is there, left is %q", left)
	}
	time.AfterFunc(20*time.Millisecond, func() { close(end) })
	if left := before.Left(patience); left != "" {
		t.Errorf("the goroutine has ended, left is %s", left)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if left := before.Left(0); left == "" {
		t.Error("a descriptor is open, and nothing is left")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if left := before.Left(0); left != "" {
		t.Errorf("the descriptor is closed, left is %s", left)
	}
}

// TestLookFromBelow shows that tests which wait are nobody's leak, however deep the one that looks.
func TestLookFromBelow(t *testing.T) {
	before := Look()
	t.Run("below", func(t *testing.T) {
		t.Run("and below", func(t *testing.T) {
			if left := before.Left(0); left != "" {
				t.Errorf("left is %s", left)
			}
		})
	})
}

// TestCheck gives the code of the tests when nothing is left, having waited for what is about to end, and 1 otherwise.
func TestCheck(t *testing.T) {
	end := make(chan struct{})
	code, left := check(func() int { go wait(end); return 0 }, 0)
	if code != 1 || !strings.Contains(left, "leak.wait(") {
		t.Errorf("with a goroutine that stays: %d, left is %q", code, left)
	}
	close(end)
	for _, code := range []int{0, 3} {
		end := make(chan struct{})
		got, left := check(func() int {
			go wait(end)
			time.AfterFunc(20*time.Millisecond, func() { close(end) })
			return code
		}, patience)
		if got != code || left != "" {
			t.Errorf("tests that end with %d: %d, left is %q", code, got, left)
		}
	}
}
