package main

import (
	"flag"
	"fmt"
	"io"
	"path/filepath"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/config"
)

// runUpgrade asks a running gateway to let another binary take over: the one that stands where it was started from, or PATH.
func runUpgrade(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sluice upgrade", flag.ContinueOnError)
	flags.SetOutput(stderr)
	wait := flags.Bool("wait", false, "return when the new process serves, or say why it does not")
	file := flags.String("c", "", "configuration `file` of the gateway, which says where its admin API is")
	address := flags.String("admin", "", "`address` of its admin API, unix:/path or host:port; default "+admin.DefaultAddress)
	binary := flags.String("binary", "", "`path` of the new binary; default: the one that the gateway was started from")
	if flags.Parse(args) != nil {
		return exitUsage
	}
	switch {
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "sluice upgrade: unexpected %q\n", flags.Arg(0))
		return exitUsage
	case *file != "" && *address != "":
		fmt.Fprintln(stderr, "sluice upgrade: -c or --admin, not both")
		return exitUsage
	}
	client, path, err := upgradeOf(*file, *address, *binary)
	if err == nil {
		err = client.Upgrade(path, *wait)
	}
	if err != nil {
		fmt.Fprintf(stderr, "sluice upgrade: %s\n", admin.Printable(err.Error(), "\n\t"))
		return exitRefused
	}
	if *wait {
		fmt.Fprintln(stdout, "upgraded")
	} else {
		fmt.Fprintln(stdout, "upgrade begun")
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
		cfg, problems := config.Load(file)
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
