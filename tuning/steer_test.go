package tuning

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// steered runs a program of steering as the kernel does (man 2 socket, SO_ATTACH_REUSEPORT_CBPF; networking/filter) for a packet on a processor.
func steered(t *testing.T, program []unix.SockFilter, cpu int) int {
	t.Helper()
	var a uint32
	for at := 0; at < len(program); at++ {
		switch i := program[at]; i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if i.K != 0xfffff024 {
				t.Fatalf("loads %#x", i.K)
			}
			a = uint32(cpu)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == i.K {
				at += int(i.Jt)
			} else {
				at += int(i.Jf)
			}
		case unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K:
			a %= i.K
		case unix.BPF_RET | unix.BPF_K:
			return int(i.K)
		case unix.BPF_RET | unix.BPF_A:
			return int(a)
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
	}
	t.Fatal("the program has no end")
	return -1
}

// numbers are every step-th number from first on, below the end.
func numbers(first, end, step int) (list []int) {
	for n := first; n < end; n += step {
		list = append(list, n)
	}
	return list
}

// TestSteering deals processors out to shards. Each shard has as many as every other, give or take one: of those that the process may
// use, which it prefers them by incoming_cpu too, and of all that may take packets in.
func TestSteering(t *testing.T) {
	f := func(name string, shards int, allowed, online []int) {
		t.Helper()
		cpus := receiving(allowed, online)
		program := steering(shards, cpus)
		if len(program) > unix.BPF_MAXINSNS {
			t.Fatalf("%s: %d instructions", name, len(program))
		}
		even := func(what string, cpus []int) {
			t.Helper()
			by := make([]int, shards)
			for _, cpu := range cpus {
				shard := steered(t, program, cpu)
				if shard < 0 || shard >= shards {
					t.Fatalf("%s: processor %d has shard %d of %d", name, cpu, shard, shards)
				}
				by[shard]++
			}
			if slices.Max(by)-slices.Min(by) > 1 {
				t.Errorf("%s: %s: shards have %v processors", name, what, by)
			}
		}
		even("allowed", allowed)
		even("all", cpus)
		even("others", cpus[len(allowed):])
		for shard := range min(shards, len(allowed)) {
			preferred := allowed[shard%len(allowed)]
			if got := steered(t, program, preferred); got != shard {
				t.Errorf("%s: incoming_cpu has shard %d prefer processor %d, which is steered to %d", name, shard, preferred, got)
			}
		}
		if got := steered(t, program, 5000); got != 5000%shards {
			t.Errorf("%s: a processor that nobody knew of has shard %d", name, got)
		}
	}
	f("0-15:1/2 with 8 loops", 8, numbers(0, 16, 2), numbers(0, 16, 1))
	f("0-15:1/2 with 8 loops, the rest offline", 8, numbers(0, 16, 2), numbers(0, 16, 2))
	f("1-15:1/2 with 3 loops", 3, numbers(1, 16, 2), numbers(0, 16, 1))
	f("3 loops on 8 processors", 3, numbers(0, 8, 1), numbers(0, 8, 1))
	f("one loop on 8 processors", 1, numbers(0, 8, 1), numbers(0, 8, 1))
	f("one loop on one processor", 1, []int{0}, []int{0})
	f("4 loops on one processor of 4", 4, []int{3}, numbers(0, 4, 1))
	f("8 loops on one processor", 8, []int{0}, []int{0})
	f("4-15 with 12 loops", 12, numbers(4, 16, 1), numbers(0, 16, 1))
	f("as many as a thread can be put on", 7, numbers(1, mostPinned, 1), nil)
	f("the host does not tell", 4, nil, nil)
	if n := len(steering(8, numbers(0, 64, 1))); n != 3 {
		t.Errorf("processors without gaps take %d instructions", n)
	}
}

// TestSteeringBound has more processors than a program can compare with: it is the modulo, and the kernel takes it. One that just fits is
// taken, too.
func TestSteeringBound(t *testing.T) {
	fits := numbers(1, 2047, 1) // each is at i+1: of two shards all differ from the modulo
	if n := len(steering(2, fits)); n != unix.BPF_MAXINSNS-1 {
		t.Errorf("the longest table has %d instructions", n)
	}
	beyond := numbers(1, 2048, 1)
	program := steering(2, beyond)
	if len(program) != 3 || steered(t, program, 7) != 1 {
		t.Errorf("%d instructions", len(program))
	}
	fd := newSocket(t)
	for _, cpus := range [][]int{fits, beyond} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			t.Fatal(err)
		}
		if err := SteerShards(fd, 2, cpus); err != nil {
			t.Errorf("%d processors: %v", len(cpus), err)
		}
	}
}

func TestReceivingCPUs(t *testing.T) {
	if got := fmt.Sprint(receiving([]int{4, 6}, []int{0, 4, 5, 6, 7})); got != "[4 6 0 5 7]" {
		t.Error(got)
	}
	allowed, cpus := AllowedCPUs(), ReceivingCPUs()
	if len(allowed) == 0 || len(cpus) < len(allowed) || !slices.Equal(cpus[:len(allowed)], allowed) {
		t.Errorf("%v of %v", allowed, cpus)
	}
}
