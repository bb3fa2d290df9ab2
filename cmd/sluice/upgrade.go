package main

import (
	"fmt"
	"path/filepath"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/server"
)

// runUpgrade asks a running gateway to let another binary take over: the one that stands where it was started from, or PATH.
func runUpgrade(c *invocation) int {
	file, address := c.text("c"), c.text("admin")
	if file != "" && address != "" {
		return c.misused("-c or --admin, not both")
	}
	client, path, err := upgradeOf(file, address, c.text("binary"))
	if err == nil {
		err = client.Upgrade(path, c.on("hurry"), c.on("wait"))
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "sluice upgrade: %s\n", admin.Printable(err.Error(), "\n\t"))
		return exitRefused
	}
	if c.on("wait") {
		fmt.Fprintln(c.stdout, "upgraded")
	} else {
		fmt.Fprintln(c.stdout, "upgrade begun")
	}
	return exitOK
}

// upgradeOf finds the gateway, and the binary as the gateway can find it.
func upgradeOf(file, address, binary string) (client admin.Client, path string, err error) {
	client.Address = address
	if address == "" {
		client.Address = admin.DefaultAddress
	}
	if file != "" {
		cfg, problems := server.Load(file)
		if cfg == nil {
			return client, "", fmt.Errorf("cannot read %q:\n%s", file, problems)
		}
		bind := cfg.Admin.Bind
		switch {
		case bind.Path != "":
			client.Address = "unix:" + bind.Path
		case bind.Addr.IsValid():
			client.Address = bind.Addr.String()
		default:
			return client, "", fmt.Errorf("cannot upgrade: %q has no admin API; send the gateway SIGUSR2", file)
		}
	}
	if binary != "" {
		if path, err = filepath.Abs(binary); err != nil {
			return client, "", fmt.Errorf("cannot find %q: %w", binary, err)
		}
	}
	return client, path, nil
}
