package config

import (
	"fmt"
	"strings"
	"testing"
)

func endpointsText(list []Endpoint) string {
	var words []string
	for i := range list {
		e := &list[i]
		words = append(words, fmt.Sprintf("%s*%d/%d%s%s@%s", e.Address, e.Weight, e.Priority, e.Zone, labelText(e.Labels), e.Pos))
	}
	return strings.Join(words, " ")
}

// What a file says counts before what its entry says of all that is in it.
func TestEndpointsFile(t *testing.T) {
	f := EndpointsFile{Path: "e", Defaults: Endpoint{Weight: 3, Priority: 1, Zone: "z", Labels: map[string]string{"a": "1", "b": "2"}}}
	const text = `[ "h:80", {"address": "10.0.0.1:80", "weight": 0, "priority": 0, "zone": "y", "labels": {"b": 3, "c": "4"}}, {"address": "srv:S"} ]`
	list, problems := f.Read([]byte(text))
	want := "h:80*3/1z{ a: \"1\", b: \"2\" }@e:1:3 10.0.0.1:80*0/0y{ a: \"1\", b: \"3\", c: \"4\" }@e:1:11 srv:s*3/1z{ a: \"1\", b: \"2\" }@e:1:110"
	if got := endpointsText(list); got != want || problems != nil {
		t.Errorf("got %s\nwant %s\n%s", got, want, problems)
	}
	yaml, problems := f.Read([]byte("# made by an agent\n---\n- &h h:80\n- address: srv:s\n  labels: { b: 2 }\n"))
	if got, want := endpointsText(yaml), "h:80*3/1z{ a: \"1\", b: \"2\" }@e:3:6 srv:s*3/1z{ a: \"1\", b: \"2\" }@e:4:3"; got != want {
		t.Errorf("got %s\nwant %s\n%s", got, want, problems)
	}
	if len(f.Defaults.Labels) != 2 {
		t.Errorf("labels of all are now %v", f.Defaults.Labels)
	}
	many := strings.Repeat("- h:1\n", 1) + lines(maxEndpoints-1)
	if list, problems = f.Read([]byte(many)); len(list) != maxEndpoints {
		t.Errorf("%d endpoints are read: %s", len(list), problems)
	}
	if list, problems = f.Read([]byte(many + "- h:2\n- h:3\n")); list != nil || len(problems) != 1 {
		t.Errorf("too many are accepted, or told often: %s", problems)
	}
	for _, bad := range []string{"", "{}", "[]", "- ", "a:80", "- a:80\n- a:80", "[ a:80", "- [a:80]", "- !!str a:80", "- *x", "\xff", "- a:80\n...\n- b:80", "- a:80\n---\n- b:80",
		strings.Repeat("[", 1000), "- a:80\n- { address: a:81, file: x }"} {
		if list, problems := f.Read([]byte(bad)); len(list) > 0 || !problems.Refused() || problems[0].Pos.File != "e" || problems[0].Pos.Line < 1 {
			t.Errorf("%q: %v, %v", bad, list, problems)
		}
	}
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- 10.0.%d.%d:80\n", i/250, i%250)
	}
	return b.String()
}

// FuzzEndpointsFile: what is accepted is what a configuration would accept, and keeps the bounds.
func FuzzEndpointsFile(f *testing.F) {
	for _, text := range []string{"- a:80\n", "[\"a:80\", {\"address\": \"unix:/x\", \"weight\": 2}]", "- { address: srv:a, labels: { a: b }, zone: z, priority: 3 }\n",
		"- &a { address: a:80 }\n- *a\n", "- [[[", "{\"a\": [1]}", "- 'x\n- y:80\n"} {
		f.Add([]byte(text))
	}
	file := EndpointsFile{Path: "e", Defaults: Endpoint{Weight: 1}}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, problems := file.Read(text)
		if (len(list) > 0) == problems.Refused() {
			t.Errorf("%d endpoints, and %s", len(list), problems)
		}
		if len(list) == 0 {
			return
		}
		u := defaultUpstream("u", Pos{})
		u.Endpoints = list
		w := &dumper{}
		w.endpoints(&u)
		again, problems := file.Read(w.out.Bytes())
		if len(again) != len(list) {
			t.Fatalf("written again:\n%s\n%s", w.out.Bytes(), problems)
		}
		for i := range list {
			e := &list[i]
			if !e.Equal(&again[i]) || e.Weight < 0 || e.Weight > 1000 || e.Priority < 0 || e.Priority > maxTier || len(e.Labels) > maxLabels || e.Pos.Line < 1 {
				t.Errorf("%+v, again %+v", e, again[i])
			}
		}
	})
}
