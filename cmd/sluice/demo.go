package main

import (
	"fmt"

	"github.com/valyala/fasthttp"
)

// runDemoUpstream serves, on the address given, answers that show what an upstream gets: for the demo.
func runDemoUpstream(c *invocation) int {
	if len(c.words) != 1 {
		fmt.Fprint(c.stderr, c.command.usage())
		return exitUsage
	}
	s := &fasthttp.Server{
		Name:               "demo",
		MaxRequestBodySize: 1 << 20,
		Handler: func(ctx *fasthttp.RequestCtx) {
			fmt.Fprintf(ctx, "This is the demo upstream at %s. It got:\n\n%s", c.words[0], ctx.Request.Header.Header())
			_, _ = ctx.Write(ctx.Request.Body())
		},
	}
	if err := s.ListenAndServe(c.words[0]); err != nil {
		return c.refuse(err)
	}
	return exitOK
}
