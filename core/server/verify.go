package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	versionTimeout = 10 * time.Second
	checkTimeout   = time.Minute
	// toldBytes bounds what a new binary prints.
	toldBytes = 64 << 10
)

// verify asks a binary for its version, and whether it accepts the configuration file, before it takes anything over.
func verify(ctx context.Context, binary, config string) (version string, err error) {
	if !filepath.IsAbs(binary) {
		return "", because(failedBinary, fmt.Errorf("cannot upgrade to %q: the path must be absolute", binary))
	}
	told, err := consult(ctx, versionTimeout, binary, "version")
	if err != nil {
		return "", because(failedBinary, fmt.Errorf("cannot upgrade to %q: %w", binary, err))
	}
	words := strings.Fields(told)
	if len(words) < 2 || words[0] != "sluice" {
		return "", because(failedBinary, fmt.Errorf("cannot upgrade to %q: asked for its version it says %.100q", binary, told))
	}
	if _, err := consult(ctx, checkTimeout, binary, "check", "-c", config); err != nil {
		return "", because(failedConfig, fmt.Errorf("cannot upgrade to %q, version %s: %w", binary, words[1], err))
	}
	return words[1], nil
}

// consult runs a binary to its end.
func consult(ctx context.Context, limit time.Duration, binary string, args ...string) (told string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := bounded{most: toldBytes}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = plainEnvironment()
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no end within %v", limit)
	}
	if err != nil {
		return "", fmt.Errorf("its command %q failed: %w\n%s", args[0], err, bytes.TrimSpace(out.text.Bytes()))
	}
	return out.text.String(), nil
}

// bounded keeps the start of what is written to it. One goroutine of os/exec writes.
type bounded struct {
	text bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.text.Write(p[:min(len(p), b.most-b.text.Len())])
	return len(p), nil
}
