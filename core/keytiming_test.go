package core

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The method is that of "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, 2017): the times of two classes of inputs, drawn at
// random one after another so that whatever else the machine does meets both, less the slowest, by Welch's t-test.
const (
	timingSamples = 60_000
	timingKept    = 0.9 // of the samples of both classes, the fastest: what is above was interrupted
	timingSure    = 10  // |t| from which on the paper is sure of a leak; chance gives more than 5 once in a million rounds
	timingRounds  = 4
)

// timingRound gives t for look, of guesses that differ from a key in the first eight bytes against such as differ in the last eight. A
// positive t says that the former are faster. Each guess is used once, so that where its hash falls is not the class's.
func timingRound(key []byte, look func(guess []byte)) float64 {
	guess := make([]byte, len(key))
	times := [2][]float64{}
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for range timingSamples {
		class := int(r.Uint64() & 1)
		copy(guess, key)
		at := class * (len(key) - 8)
		other := binary.LittleEndian.Uint64(key[at:]) ^ (r.Uint64() | 0x0101010101010101)
		binary.LittleEndian.PutUint64(guess[at:], other)
		begin := time.Now()
		look(guess)
		times[class] = append(times[class], float64(time.Since(begin)))
	}
	return welch(times)
}

// welch is Welch's t of the fastest of both classes, below one bound.
func welch(times [2][]float64) float64 {
	all := slices.Concat(times[0], times[1])
	slices.Sort(all)
	bound := all[int(float64(len(all)-1)*timingKept)]
	var mean, spread [2]float64
	for class, of := range times {
		n, sum, squares := 0.0, 0.0, 0.0
		for _, x := range of {
			if x <= bound {
				n, sum, squares = n+1, sum+x, squares+x*x
			}
		}
		mean[class] = sum / n
		spread[class] = max(squares/n-mean[class]*mean[class], 0) / (n - 1)
	}
	if spread[0]+spread[1] == 0 {
		return 0
	}
	return (mean[1] - mean[0]) / math.Sqrt(spread[0]+spread[1])
}

// TestKeyTiming: how long a lookup takes does not tell how much of a key was guessed right. First the method is held against a comparison
// that does tell, of the keys themselves; where the machine is too busy to see even that, nothing can be said.
func TestKeyTiming(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	key := make([]byte, 1024) // the longest: what leaks by the byte leaks most
	for i := range key {
		key[i] = byte('a' + i%26)
	}
	all := manyConsumers(100)
	all[50].Keys = []APIKey{{Sum: sha256.Sum256(key)}}
	d, err := NewDirectory(all)
	if err != nil {
		t.Fatal(err)
	}
	if d.ByKey(key) == nil {
		t.Fatal("the key is not found")
	}
	found := 0
	// leaks says whether every round is sure: one that is not shows that the others have seen something else.
	leaks := func(what string, look func(guess []byte)) bool {
		for range timingRounds {
			score := timingRound(key, look)
			t.Logf("%s: t = %.1f", what, score)
			if math.Abs(score) < timingSure {
				return false
			}
		}
		return true
	}
	if !leaks("keys compared until they differ", func(guess []byte) {
		if bytes.Equal(guess, key) {
			found++
		}
	}) {
		t.Skip("this machine is too busy to measure times")
	}
	if leaks("lookup", func(guess []byte) {
		if d.ByKey(guess) != nil {
			found++
		}
	}) {
		t.Error("the time of a lookup tells how much of a key was guessed right")
	}
	if found > 0 {
		t.Errorf("%d guesses were right", found)
	}
}
