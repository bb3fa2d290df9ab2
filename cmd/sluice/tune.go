package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/tuning"
)

// runTune reports, or applies, or takes back.
func runTune(c *invocation) int {
	if c.on("revert") && (c.on("apply") || c.on("dry-run")) {
		return c.misused("--revert goes alone")
	}
	root, err := os.OpenRoot(c.text("root"))
	if err != nil {
		return c.refuse(fmt.Errorf("cannot open the host's root: %w", err))
	}
	defer func() { _ = root.Close() }()
	host := &tuning.Host{Files: root.FS()}
	if c.text("root") == "/" {
		host.Device = tuning.ReadDevice
	}
	applier := &tuning.Applier{Root: root, File: c.text("file")}
	var changes []tuning.Change
	switch {
	case c.on("dry-run"):
		changes, diff, err := applier.Plan(host.Examine())
		if err == nil {
			err = c.showPlan(changes, diff)
		}
		if err != nil {
			return c.refuse(err)
		}
		return exitOK
	case c.on("apply"):
		changes, err = applier.Apply(host.Examine())
	case c.on("revert"):
		changes, err = applier.Revert()
	default:
		if err := c.showReport(host.Examine()); err != nil {
			return c.refuse(err)
		}
		return exitOK
	}
	failed := (err == nil || len(changes) > 0) && c.showChanges(changes)
	switch {
	case err != nil:
		return c.refuse(err)
	case failed:
		return exitRefused
	}
	return exitOK
}

func (c *invocation) showReport(r *tuning.Report) error {
	if c.on("json") {
		return c.printJSON(r)
	}
	_, err := r.WriteTo(c.stdout)
	return err
}

// showPlan shows how the file would change: the changes themselves for programs.
func (c *invocation) showPlan(changes []tuning.Change, diff []string) error {
	if c.on("json") {
		return c.printJSON(struct {
			Changes []tuning.Change `json:"changes"`
			Diff    []string        `json:"diff"`
		}{changes, diff})
	}
	if len(diff) == 0 {
		_, err := fmt.Fprintln(c.stdout, "nothing to change")
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "%s:\n%s\n", c.text("file"), strings.Join(diff, "\n"))
	return err
}

// showChanges shows what was done and, on the error output, what was not; failed: something that should have been done.
func (c *invocation) showChanges(changes []tuning.Change) (failed bool) {
	type done struct {
		tuning.Change
		Error string `json:"error,omitempty"`
	}
	all := []done{}
	for _, change := range changes {
		d := done{Change: change}
		if change.Err != nil {
			d.Error = change.Err.Error()
			failed = failed || !errors.Is(change.Err, tuning.ErrChanged)
			fmt.Fprintf(c.stderr, "sluice tune: %s: %s\n", change.Key, admin.Printable(d.Error, ""))
		} else if !c.on("json") {
			fmt.Fprintf(c.stdout, "%s = %s (was %s)\n", change.Key, change.To, change.From)
		}
		all = append(all, d)
	}
	switch {
	case c.on("json"):
		_ = c.printJSON(all)
	case len(changes) == 0:
		fmt.Fprintln(c.stdout, "nothing to change")
	}
	return failed
}

func (c *invocation) printJSON(v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
