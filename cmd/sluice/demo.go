package main

import (
	"fmt"
	"io"

	"github.com/valyala/fasthttp"
)

// runDemoUpstream serves, on the address given, answers that show what an upstream gets: for the demo.
func runDemoUpstream(args []string, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: sluice demo-upstream ADDRESS")
		return exitUsage
	}
	s := &fasthttp.Server{
		Name:               "demo",
		MaxRequestBodySize: 1 << 20,
		Handler: func(ctx *fasthttp.RequestCtx) {
			fmt.Fprintf(ctx, "This is the demo upstream at %s. It got:\n\n%s", args[0], ctx.Request.Header.Header())
			_, _ = ctx.Write(ctx.Request.Body())
		},
	}
	if err := s.ListenAndServe(args[0]); err != nil {
		fmt.Fprintf(stderr, "sluice demo-upstream: %v\n", err)
		return exitRefused
	}
	return exitOK
}
