package lb

import (
	"strings"
	"testing"
)

func TestSubset(t *testing.T) {
	es := lettered(1, 1, 1, 1)
	es[0].Labels = map[string]string{"version": "1", "stage": "prod"}
	es[1].Labels = map[string]string{"version": "2", "stage": "prod"}
	es[2].Labels = map[string]string{"version": "2", "stage": ""}
	f := func(labels map[string]string, otherwise bool, want string) {
		t.Helper()
		var got strings.Builder
		for _, e := range Subset(es, labels, otherwise) {
			got.WriteString(e.Address)
		}
		if got.String() != want {
			t.Errorf("%v: got %q, want %q", labels, got.String(), want)
		}
	}
	f(map[string]string{"version": "2"}, false, "bc")
	f(map[string]string{"version": "2", "stage": "prod"}, false, "b")
	f(map[string]string{"stage": ""}, false, "c") // not those that have no such label
	f(nil, false, "abcd")
	f(map[string]string{"version": "3"}, false, "")
	f(map[string]string{"version": "3"}, true, "abcd")
}
