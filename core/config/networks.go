package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Networks are a list of networks, those that stand in it and those of files.
type Networks struct {
	Prefixes []netip.Prefix
	Files    []NetworksFile
}

// Given says whether there is a list. Its files may name nobody: then nobody is in it.
func (n *Networks) Given() bool { return len(n.Prefixes)+len(n.Files) > 0 }

// text is the list as it is written.
func (n *Networks) text() string {
	var list []string
	for _, p := range n.Prefixes {
		list = append(list, prefixText(p))
	}
	for i := range n.Files {
		list = append(list, "file:"+n.Files[i].Path)
	}
	return quoteList(list)
}

// NetworksFile holds networks that may change while the configuration is in force: a network or an address in a line, what follows a # is
// a remark.
type NetworksFile struct {
	Path     string // absolute
	Prefixes []netip.Prefix
	Sum      [sha256.Size]byte // of the text, by which a change is seen
}

const (
	maxNetworks      = 100_000 // in a list, and in a file
	maxNetworksFiles = 16      // of a list: each of them is asked
)

// ReadNetworksFile reads a file of networks as Load does, of at most 16 MiB. An error names the line.
func ReadNetworksFile(path string) (*NetworksFile, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %q: %s", clip(path), cause(err))
	}
	f := &NetworksFile{Path: path}
	if err := f.read(text); err != nil {
		return nil, err
	}
	return f, nil
}

// networks reads networks, and files of them.
func (d *decoder) networks(key string, n ast.Node, to *Networks) {
	d.list(key, n, func(v ast.Node) {
		v = d.resolve(v)
		s, ok := v.(*ast.StringNode)
		if !ok || !strings.HasPrefix(s.Value, "file:") {
			d.prefixes(key, v, &to.Prefixes)
			return
		}
		f := NetworksFile{Path: strings.TrimPrefix(s.Value, "file:")}
		if !strings.HasPrefix(f.Path, "/") {
			d.problem(v, "write file:/path", "the path of a reference must be absolute, not %q", clip(f.Path))
			return
		}
		if slices.ContainsFunc(to.Files, func(o NetworksFile) bool { return o.Path == f.Path }) {
			d.problem(v, "", "%q stands twice in %q", clip(s.Value), key)
			return
		}
		text, err := d.env.readFile(f.Path)
		if err != nil {
			d.problem(v, "", "cannot read %q: %s", clip(f.Path), cause(err))
			return
		}
		if err := f.read(text); err != nil {
			d.problem(v, `write "10.0.0.0/8", "fd00::/8" or an address, one in a line`, "%s", err)
			return
		}
		to.Files = append(to.Files, f)
	})
	if len(to.Prefixes) > maxNetworks {
		d.problem(n, "", "%q has more than %d entries", key, maxNetworks)
	}
	if len(to.Files) > maxNetworksFiles {
		d.problem(n, "", "%q has more than %d files", key, maxNetworksFiles)
	}
}

// read takes the lines of the file. The first that is wrong is told of.
func (f *NetworksFile) read(text []byte) error {
	at := clip(f.Path)
	if len(text) > maxFileBytes { // it may be cut off
		return errors.New(at + ": the file is larger than " + formatSize(maxFileBytes))
	}
	f.Sum = sha256.Sum256(text)
	line := 0
	for one := range strings.SplitSeq(strings.TrimPrefix(string(text), byteOrderMark), "\n") {
		line++
		whole := one
		one, _, _ = strings.Cut(one, "#")
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(one)
		if addr, addrErr := netip.ParseAddr(one); err != nil && addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
			return fmt.Errorf("%s:%d:%d: %q is no CIDR", at, line, strings.Index(whole, one)+1, clip(one))
		}
		if len(f.Prefixes) == maxNetworks {
			return fmt.Errorf("%s:%d:1: the file has more than %d entries", at, line, maxNetworks)
		}
		f.Prefixes = append(f.Prefixes, prefix)
	}
	return nil
}
