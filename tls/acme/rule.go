package acme

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

const (
	// maxPatterns is the most of AllowNames.
	maxPatterns = 10_000
	// maxAsked is how many questions of one AskURL are under way; more wait.
	maxAsked = 32
)

// errNotListed is the answer of AllowNames, made once since clients ask for what they like.
var errNotListed = errors.New("no pattern is for it")

// AllowNames makes a rule for Options.OnDemand of names, and of patterns "*.example.com", which stand for one label before
// the rest, as in a certificate. It never blocks.
func AllowNames(patterns []string) (func(ctx context.Context, name string) error, error) {
	if len(patterns) == 0 || len(patterns) > maxPatterns {
		return nil, fmt.Errorf("cannot allow names by %d patterns: there must be 1 to %d", len(patterns), maxPatterns)
	}
	exact, below := map[string]bool{}, map[string]bool{}
	for _, p := range patterns {
		suffix, wild := strings.CutPrefix(p, "*.")
		name, ok := fold(suffix)
		switch {
		case !ok:
			return nil, fmt.Errorf("cannot allow names by the pattern %q: it is neither a name nor *. and a name", p)
		case wild:
			below[name] = true
		default:
			exact[name] = true
		}
	}
	return func(_ context.Context, name string) error {
		_, parent, _ := strings.Cut(name, ".")
		if exact[name] || below[parent] {
			return nil
		}
		return errNotListed
	}, nil
}

// AskURL makes a rule for Options.OnDemand that asks a server: a GET with the parameter domain added to the query, which
// status 200 allows and all else refuses. Redirects are not followed, and of the answer nothing but the status is read.
func AskURL(where string) (func(ctx context.Context, name string) error, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("cannot ask %q about names: it is no http or https URL without user and fragment", where)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}, // nothing outlives the rule
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	slots := make(chan struct{}, maxAsked)
	return func(ctx context.Context, name string) error {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return fmt.Errorf("cannot ask %q: %w", where, ctx.Err())
		}
		asked := *u
		query := asked.Query()
		query.Set("domain", name)
		asked.RawQuery = query.Encode()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, asked.String(), nil)
		if err != nil {
			return fmt.Errorf("cannot ask %q: %w", where, err)
		}
		response, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("cannot ask %q: %w", where, errors.Unwrap(err))
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%q answers with status %d", where, response.StatusCode)
		}
		return nil
	}, nil
}
