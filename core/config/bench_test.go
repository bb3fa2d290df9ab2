package config

import (
	"fmt"
	"strings"
	"testing"
)

// manyRoutes writes n routes, in flow style on one line each, or in block style.
func manyRoutes(n int, block bool) []byte {
	var b strings.Builder
	b.WriteString("listeners:\n  http: { bind: \":8080\" }\nupstreams:\n  a: [127.0.0.1:80]\nroutes:\n")
	for i := range n {
		if block {
			fmt.Fprintf(&b, "  - match: GET api%d.example.com/v1/c%d/*\n    strip_prefix: /v1\n    to: a\n", i%1000, i)
		} else {
			fmt.Fprintf(&b, "  - { match: GET api%d.example.com/v1/c%d/*, to: a }\n", i%1000, i)
		}
	}
	return []byte(b.String())
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		for _, block := range []bool{false, true} {
			text := manyRoutes(n, block)
			b.Run(fmt.Sprintf("routes=%d/block=%t", n, block), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					cfg, problems := Parse("sluice.yaml", text, Env{})
					if cfg == nil || len(cfg.Routes) != n {
						b.Fatalf("cannot load: %s", problems)
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(n)*1e9, "ns/route")
			})
		}
	}
}

// BenchmarkYAML is what the YAML library takes of BenchmarkParse: the same segments, parsed and thrown away.
func BenchmarkYAML(b *testing.B) {
	for _, chunk := range []int{chunkBytes, maxFileBytes} {
		for _, block := range []bool{false, true} {
			text := manyRoutes(100_000, block)
			b.Run(fmt.Sprintf("chunk=%d/block=%t", chunk, block), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					src, _ := newSource("sluice.yaml", text)
					segments, _ := split(src, chunk)
					parseSegments(src.name, segments, func(_ segment, tree parsed) {
						if tree.problems != nil {
							b.Fatal(tree.problems)
						}
					})
				}
			})
		}
	}
}
