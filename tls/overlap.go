package tls

import "fmt"

// overlap is a name in two certificates with the same kind of key.
type overlap struct {
	first, second *slot
	names         int
	name          string // one of them
}

// OverlapError says that one name stands in two certificates with the same kind of key, so that it would be chance which one clients
// get. First and Second are indexes of pairs, and equal where one pattern finds both.
type OverlapError struct {
	First, Second         int
	FirstFile, SecondFile string
	Name                  string
	Names                 int // that both have
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("cannot use %q: the name %q%s stands with the same kind of key in %q", e.SecondFile, e.Name, more(e.Names-1), e.FirstFile)
}

// refusal says that l cannot be used beside the other.
func (o *overlap) refusal(l *slot) *OverlapError {
	other := o.first
	if l == other {
		other = o.second
	}
	return &OverlapError{First: other.pair, Second: l.pair, FirstFile: other.label(), SecondFile: l.label(), Name: o.name, Names: o.names}
}

func (o *overlap) warning() Warning {
	return Warning{o.second.pair, o.second.label(), Overlap,
		fmt.Sprintf("the name %q%s stands with the same kind of key in %q, which is used for it", o.name, more(o.names-1), o.first.label())}
}

// fromPattern says whether the overlap may have come with a file that nobody has written into the configuration.
func (o *overlap) fromPattern() bool { return o.first.fromGlob || o.second.fromGlob }

// settle takes those renewals back that bring names which stand elsewhere: their predecessors stay in use, and they wait until the names
// are theirs alone. Renewals that exchange names with each other do not; nor is a slot held back for an overlap that it had before.
// renewed has what each slot held before its renewal.
func (s *Store) settle(renewed map[*slot]*loaded) {
	if s.options.Client {
		return
	}
	had := map[[2]*slot]bool{}
	for _, o := range s.overlaps {
		had[[2]*slot{o.first, o.second}] = true
	}
	for again := len(renewed) > 0; again; {
		again = false
		_, overlaps := s.build()
		for _, o := range overlaps {
			late := o.second
			if _, is := renewed[late]; !is {
				late = o.first
			}
			before, is := renewed[late]
			if !is || had[[2]*slot{o.first, o.second}] {
				continue
			}
			late.waiting, late.good, late.problem = late.good, before, o.refusal(late)
			delete(renewed, late)
			again = true // what stays may overlap with another renewal
			break
		}
	}
}
