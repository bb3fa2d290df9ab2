package loop

import "testing"

// However many transfers are long, the large buffers that they hold are few, and what was returned is lent again.
func TestBorrowLongIsBounded(t *testing.T) {
	l := new(Loop)
	var held [][]byte
	for range 3 * maxBulk {
		held = append(held, l.BorrowLong())
	}
	large := 0
	for _, p := range held {
		if len(p) == BulkBytes {
			large++
		}
	}
	if large != maxBulk {
		t.Fatalf("%d large buffers lent, want %d", large, maxBulk)
	}
	for _, p := range held {
		l.Return(p)
	}
	if n := testing.AllocsPerRun(100, func() { l.Return(l.BorrowLong()) }); n != 0 {
		t.Errorf("borrowing again allocates %v times", n)
	}
}
