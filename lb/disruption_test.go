package lb

import (
	"slices"
	"testing"
)

const disruptionKeys = 50_000

// owners gives the endpoint of each of many keys.
func owners(spec *Spec, es []*Endpoint) []*Load {
	p := NewPicker(NewSet(spec, es, 0), 1, nil)
	out := make([]*Load, disruptionKeys)
	for i := range out {
		out[i] = p.Pick(&Attempt{Key: mix(uint64(i)), Keyed: true}).Load
	}
	return out
}

// moved is the share of keys, of all, that have another endpoint, where neither the old nor the new one is l.
func moved(before, after []*Load, l *Load) float64 {
	n := 0
	for i := range before {
		if before[i] != after[i] && before[i] != l && after[i] != l {
			n++
		}
	}
	return float64(n) / float64(len(before))
}

// When an endpoint goes hardly more than its own keys move, when one comes hardly more than those that it gets.
func TestDisruption(t *testing.T) {
	for _, c := range []struct {
		algorithm Algorithm
		most      float64
	}{{RingHash, 0.0001}, {Maglev, 0.02}} {
		spec := Defaults(c.algorithm)
		for _, n := range []int{2, 5, 10, 50, 300} {
			for _, weighted := range []bool{false, true} {
				es := alike(n)
				for i, e := range es {
					if weighted {
						e.Weight = 100 + 10*(i%5)
					}
				}
				all := owners(&spec, es)
				worst := 0.0
				for _, out := range []int{0, n / 2, n - 1} {
					less := owners(&spec, slices.Delete(slices.Clone(es), out, out+1))
					worst = max(worst, moved(all, less, es[out].Load))
					if own := moved(all, less, nil); own > 1.6/float64(n)+c.most {
						t.Errorf("%v, %d endpoints: %.3f of all keys moved", c.algorithm, n, own)
					}
				}
				t.Logf("%v, %d endpoints, weighted %v: %.2f%% of the keys moved without need", c.algorithm, n, weighted, 100*worst)
				if worst > c.most {
					t.Errorf("that is more than %.2f%%", 100*c.most)
				}
			}
		}
	}
}

// A change of weight moves about as many keys as shares change.
func TestDisruptionByWeight(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev} {
		spec, es := Defaults(algorithm), pool(100, 100, 100, 100, 100, 100, 100, 100, 100, 100)
		before := owners(&spec, es)
		es[4].Load.SetWeight(50)
		if n := moved(before, owners(&spec, es), nil); n < 0.03 || n > 0.09 {
			t.Errorf("%v: %.3f of all keys moved, 0.047 is the change of shares", algorithm, n)
		}
	}
}

// An endpoint that is in trouble loses its keys, all others keep theirs, and it gets the same ones back.
func TestDisruptionByHealth(t *testing.T) {
	for _, algorithm := range []Algorithm{RingHash, Maglev} {
		spec, es := Defaults(algorithm), alike(20)
		before := owners(&spec, es)
		es[7].Load.Raise(Ejected)
		down := owners(&spec, es)
		if slices.Contains(down, es[7].Load) {
			t.Errorf("%v: an ejected endpoint has keys", algorithm)
		}
		if n := moved(before, down, es[7].Load); n > 0.02 {
			t.Errorf("%v: %.3f of all keys moved besides its own", algorithm, n)
		}
		es[7].Load.Clear(Ejected, 5)
		if !slices.Equal(before, owners(&spec, es)) {
			t.Errorf("%v: it did not get its keys back", algorithm)
		}
	}
}

// On a ring a retry goes where the key would be if the endpoints that were tried had gone.
func TestRingRetriesGoWhereKeysMove(t *testing.T) {
	spec, es := Defaults(RingHash), alike(12)
	p := NewPicker(NewSet(&spec, es, 0), 1, nil)
	first, second := owners(&spec, es), owners(&spec, es[1:])
	for i := range 10_000 {
		a := Attempt{Key: mix(uint64(i)), Keyed: true}
		a.Tried(es[0])
		if e := p.Pick(&a); first[i] == es[0].Load && e.Load != second[i] {
			t.Fatalf("key %d: the retry goes to %s", i, e.Address)
		}
	}
}
