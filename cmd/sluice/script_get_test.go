package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// getRequest is what a `get` line asks for.
type getRequest struct {
	to, method, body string
	url              string
	fields           []string
	status           int // 0: any
	retry            time.Duration
}

func (c *call) parseGet(args []string) (*getRequest, error) {
	g := &getRequest{}
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	flags.StringVar(&g.to, "to", c.ts.Getenv("HTTP"), "")
	flags.StringVar(&g.method, "X", "GET", "")
	flags.StringVar(&g.body, "d", "", "")
	flags.IntVar(&g.status, "status", 0, "")
	flags.DurationVar(&g.retry, "retry", 0, "")
	flags.Func("H", "", func(field string) error {
		g.fields = append(g.fields, field)
		return nil
	})
	if err := parseFlags(flags, args); err != nil || flags.NArg() != 1 {
		return nil, usageError("get [-to ADDRESS] [-X METHOD] [-H 'NAME: VALUE']... [-d BODY] [-status N] [-retry D] [HOST]/PATH")
	}
	g.url = flags.Arg(0)
	if strings.HasPrefix(g.url, "/") {
		host := g.to
		if strings.HasPrefix(host, "unix:") {
			host = "localhost"
		}
		g.url = host + g.url
	}
	return g, nil
}

// cmdGet: get [options] [HOST]/PATH makes a request with net/http's client, an independent judge of the framing, to
// $HTTP or -to ADDRESS, and puts status, fields in alphabetical order and body into stdout. Redirects are not followed.
// -status N fails on any other status; -retry D tries again until the command succeeds or D is over.
func cmdGet(c *call) error {
	g, err := c.parseGet(c.args)
	if err != nil {
		return err
	}
	client, end := clientTo(g.to)
	defer end()
	answer := ""
	err = eventually(g.retry, func() error {
		answer, err = g.do(client)
		return err
	})
	c.stdout().WriteString(answer)
	return err
}

// clientTo returns a client that connects to address whatever the URL says; end closes its connections.
func clientTo(address string) (client *http.Client, end func()) {
	network, addr := splitAddress(address)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 100,
	}
	client = &http.Client{
		Transport:     transport,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, transport.CloseIdleConnections
}

func (g *getRequest) do(client *http.Client) (string, error) {
	var body io.Reader
	if g.body != "" {
		body = strings.NewReader(g.body)
	}
	req, err := http.NewRequest(g.method, "http://"+g.url, body)
	if err != nil {
		return "", err
	}
	for _, field := range g.fields {
		name, value, _ := strings.Cut(field, ":")
		req.Header.Add(name, strings.TrimSpace(value))
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("cannot read body: %w", err)
	}
	answer := showAnswer(resp, text)
	if g.status != 0 && resp.StatusCode != g.status {
		return answer, fmt.Errorf("the status is %d, want %d", resp.StatusCode, g.status)
	}
	return answer, nil
}

func showAnswer(resp *http.Response, body []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", resp.Status)
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		for _, value := range resp.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	text := describeBody(body)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	fmt.Fprintf(&b, "\n%s", text)
	for _, name := range slices.Sorted(maps.Keys(resp.Trailer)) {
		fmt.Fprintf(&b, "trailer %s: %s\n", name, resp.Trailer.Get(name))
	}
	return b.String()
}

// cmdParallel: parallel N get ... makes N requests at once, and puts a line "STATUS: HOW MANY" for each status into
// stdout, with status 0 for requests without an answer.
func cmdParallel(c *call) error {
	n := 0
	if len(c.args) < 2 || c.args[1] != "get" {
		return usageError("parallel N get ...")
	}
	if _, err := fmt.Sscan(c.args[0], &n); err != nil || n < 1 || n > 10000 {
		return usageError("parallel N get ...")
	}
	g, err := c.parseGet(c.args[2:])
	if err != nil {
		return err
	}
	client, end := clientTo(g.to)
	defer end()
	var mu sync.Mutex
	var wg sync.WaitGroup
	counts := map[string]int{}
	for range n {
		wg.Go(func() {
			answer, err := g.do(client)
			status, _, _ := strings.Cut(answer, " ")
			mu.Lock()
			defer mu.Unlock()
			if err != nil && answer == "" {
				status = "0"
			}
			counts[status]++
		})
	}
	wg.Wait()
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(c.stdout(), "%s: %d\n", status, counts[status])
	}
	return nil
}
