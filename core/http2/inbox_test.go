package http2

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// TestInbox puts bytes in and takes them out at random: all come out, in order, in pieces with the room that their takers need,
// and the buffers hold little more than the bytes.
func TestInbox(t *testing.T) {
	r := &resources{loop: &loop.Loop{}}
	random := rand.New(rand.NewPCG(3, 4))
	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	for range 200 {
		var in inbox
		var lent []byte
		put, taken := 0, 0
		for put < len(text) || taken < put {
			if n := min(random.IntN(1<<random.IntN(15)), len(text)-put); random.IntN(20) > 0 || put == len(text) {
				if another := in.put(r, text[put:put+n]); another && len(in.full) == 0 {
					t.Fatal("no buffer is full")
				}
				put += n
			}
			if in.bytes != int64(put-taken) {
				t.Fatalf("%d bytes are here, want %d", in.bytes, put-taken)
			}
			size := cap(in.filling)
			for _, p := range in.full {
				size += cap(p)
			}
			if most := int(in.bytes)*5/3 + loop.BufferBytes; size > most {
				t.Fatalf("%d bytes of buffers hold %d bytes", size, in.bytes)
			}
			if random.IntN(30) > 0 && put < len(text) {
				continue
			}
			r.giveBack(lent)
			lent = in.take(r)
			if n := len(lent) - room; n < 0 || !bytes.Equal(lent[room:], text[taken:taken+n]) || cap(lent)-len(lent) < core.PieceTail {
				t.Fatalf("bytes %d to %d are wrong, or without room for what goes around them", taken, taken+n)
			}
			taken += len(lent) - room
			for i := range lent[:cap(lent)] { // who has it may write over it
				lent[:cap(lent)][i] = 0
			}
		}
		r.giveBack(lent)
		in.put(r, text[:100])
		if in.drop(r); in.bytes != 0 || in.filling != nil {
			t.Fatal("something is left")
		}
	}
}
