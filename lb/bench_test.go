package lb

import (
	"fmt"
	"testing"
)

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, weighted := range []bool{false, true} {
			es := alike(n)
			for i, e := range es {
				if weighted {
					e.Weight = 1 + i%7
				}
				for range i % 5 {
					e.Load.Begin()
				}
			}
			for a := range Algorithm(len(algorithms) - 1) {
				spec := Defaults(a)
				s := NewSet(&spec, es, 0)
				for i := range es {
					es[i].Load.Begin()
					es[i].Load.End(int64(i)<<20, int64(1+i%9)<<20, false)
				}
				b.Run(fmt.Sprintf("%v/%d/weighted=%v", a, n, weighted), func(b *testing.B) { benchmarkPick(b, s) })
				if a == RingHash || a == Maglev {
					spec.LoadFactor = 1.25
					s := NewSet(&spec, es, 0)
					b.Run(fmt.Sprintf("%v bounded/%d/weighted=%v", a, n, weighted), func(b *testing.B) { benchmarkPick(b, s) })
				}
				if a == LeastRequest {
					spec.FullScan = true
					s := NewSet(&spec, es, 0)
					b.Run(fmt.Sprintf("%v full scan/%d/weighted=%v", a, n, weighted), func(b *testing.B) { benchmarkPick(b, s) })
				}
			}
		}
	}
}

func benchmarkPick(b *testing.B, s *Set) {
	p := NewPicker(s, 1, nil)
	a := Attempt{Keyed: true, Now: 1e9}
	b.ReportAllocs()
	for b.Loop() {
		a.Key = a.Key*6364136223846793005 + 1442695040888963407
		p.Pick(&a)
	}
}

func BenchmarkBeginEnd(b *testing.B) {
	for _, a := range []Algorithm{LeastRequest, PeakEWMA} {
		b.Run(a.String(), func(b *testing.B) {
			spec, es := Defaults(a), alike(1)
			NewSet(&spec, es, 0)
			now := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				now += 1 << 20
				es[0].Load.Begin()
				es[0].Load.End(now, now&0xffffff, false)
			}
		})
	}
}

func BenchmarkNewSet(b *testing.B) {
	for _, a := range []Algorithm{LeastRequest, RingHash, Maglev} {
		b.Run(a.String()+"/1000", func(b *testing.B) {
			spec, es := Defaults(a), alike(1000)
			for b.Loop() {
				NewSet(&spec, es, 0)
			}
		})
	}
}
