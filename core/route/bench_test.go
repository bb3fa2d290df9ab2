package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// benchRules is n routes of one depth, ten to a host.
func benchRules(n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = rule1(fmt.Sprintf("GET host%d.example.com/api/v1/service-%d/items", i/10, i%10))
	}
	return rules
}

// hostRules is n routes of as many hosts.
func hostRules(n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = rule1(fmt.Sprintf("GET host%d.example.com/api/v1/service-%d/items", i, i%100))
	}
	return rules
}

// oneHostRules is n routes of one host, with a parameter below.
func oneHostRules(n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = rule1(fmt.Sprintf("GET www.example.com/api/v1/service-%d/{id}", i))
	}
	return rules
}

// BenchmarkMatch shows what the number of routes costs for paths of the same depth: with one request over and over, and
// with requests for all the routes in random order, of which the memory is not in a cache near by.
func BenchmarkMatch(b *testing.B) {
	for _, shape := range []struct {
		name string
		make func(int) []Rule
	}{{"ten-to-a-host", benchRules}, {"one-to-a-host", hostRules}, {"one-host", oneHostRules}} {
		for _, n := range []int{10, 1_000, 100_000} {
			rules := shape.make(n)
			table := compile(b, rules...)
			for _, spread := range []int{1, 1000} {
				b.Run(fmt.Sprintf("%s/routes=%d/requests=%d", shape.name, n, spread), func(b *testing.B) {
					requests := make([]*core.Exchange, spread)
					for i := range requests {
						text := rules[rand.IntN(n)].Target.Name
						requests[i] = request(b, strings.ReplaceAll(text, "{id}", "77"))
					}
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						x := requests[i]
						if i++; i == len(requests) {
							i = 0
						}
						x.Params = x.Params[:0]
						if table.Match(x) == nil {
							b.Fatal("no route")
						}
					}
				})
			}
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		rules := benchRules(n)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			for b.Loop() {
				compile(b, rules...)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/route")
		})
	}
}
