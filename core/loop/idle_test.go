package loop

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// maxIdleHeapBytes bounds what an idle connection may take of the heap: its Conn, and its place in the loop's table.
const maxIdleHeapBytes = 400

// residentBytes is what the process holds of memory.
func residentBytes(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	check(t, err)
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	check(t, err)
	return pages * os.Getpagesize()
}

func heapBytes() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// 10,000 connections that have been served and are idle hold neither a coroutine nor a buffer, and a few hundred bytes
// each. All of them are served again.
func TestIdleConnections(t *testing.T) {
	if !isChild() {
		child(t) // for a memory of its own
		return
	}
	count := 10_000
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = limit.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if most := (int(limit.Max) - 200) / 2; most < count { // both ends are ours
		count = most
	}
	l, _ := start(t, Options{})
	peers := make([]int, 0, count)
	connect := func(n int) {
		for range n {
			mine, theirs := unixPair(t)
			peers = append(peers, theirs)
			on(t, l, func() {
				c, err := l.Adopt(mine, serve(echo))
				check(t, err)
				c.Idle(l.Now() + 3600e9)
			})
		}
	}
	round := func(name uint64) {
		out, in := make([]byte, 100), make([]byte, 100)
		for i, fd := range peers {
			pattern(out, name, int64(i))
			_, e := write(fd, out)
			if e != 0 {
				t.Fatal(e)
			}
		}
		for i, fd := range peers {
			check(t, awaitEvents(int32(fd), unix.POLLIN))
			if n, e := read(fd, in); n != len(in) || e != 0 || differs(in, name, int64(i)) >= 0 {
				t.Fatalf("connection %d got %d bytes: %v", i, n, e)
			}
		}
	}
	connect(100)
	round(1)
	heap, resident := heapBytes(), residentBytes(t)
	connect(count - 100)
	round(2)
	eventually(t, l, "all are idle", func() bool { return len(l.idle) == len(l.all) })
	n := count - 100
	each, eachResident := (heapBytes()-heap)/n, (residentBytes(t)-resident)/n
	on(t, l, func() {
		if len(l.buffers.free) > maxBuffers || len(l.all) > maxIdle {
			t.Errorf("%d coroutines and %d buffers are kept", len(l.all), len(l.buffers.free))
		}
	})
	t.Logf("%d idle connections: %d bytes of heap and %d bytes resident each", n, each, eachResident)
	if each > maxIdleHeapBytes {
		t.Errorf("an idle connection takes %d bytes of the heap, want at most %d", each, maxIdleHeapBytes)
	}
	round(3)
	for _, fd := range peers {
		closeFD(fd)
	}
	eventually(t, l, "all are closed", func() bool {
		for _, c := range l.conns {
			if c != nil {
				return false
			}
		}
		return true
	})
}
