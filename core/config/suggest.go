package config

import "strings"

const (
	maxSuggestRunes = 64      // longer names are not compared
	maxSuggestTries = 200_000 // comparisons in one load, so that a hostile file cannot make its own refusal slow
)

// suggester finds the nearest valid name.
type suggester struct{ tries int }

// hint returns `did you mean "..."?`, or "" where nothing is near: a third of the name may differ, and never all of it.
// Of several at the same distance the first wins.
func (s *suggester) hint(name string, valid func(yield func(string) bool)) string {
	if len(name) > maxSuggestRunes {
		return ""
	}
	wanted := strings.ToLower(name)
	best, distance := "", min(max(1, len(name)/3)+1, len(name))
	for candidate := range valid {
		if s.tries++; s.tries > maxSuggestTries {
			break
		}
		if candidate == name || len(candidate) > maxSuggestRunes || abs(len(candidate)-len(name)) >= distance {
			continue
		}
		if d := editDistance(wanted, strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return `did you mean "` + best + `"?`
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

// editDistance counts insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
// Both strings are at most maxSuggestRunes bytes long.
func editDistance(a, b string) int {
	var rows [3][maxSuggestRunes + 1]int
	before, prev, cur := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
