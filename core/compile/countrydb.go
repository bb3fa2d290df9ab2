package compile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/sluice-gateway/sluice/core/policy/ip"
)

// Bounds of a database. The largest that are sold, of cities, have a tenth of the nodes and a third of the bytes.
const (
	maxCountryBytes   = 512 << 20
	maxCountryNodes   = 1 << 25
	maxCountryRecords = 1 << 20 // whose country is remembered while a file is read
	maxCountryTime    = time.Minute
	countryLookEvery  = 1 << 12 // networks between looks at the clock
)

var (
	errCountryBytes = fmt.Errorf("it has more than %d MiB", maxCountryBytes>>20)
	errCountryNodes = fmt.Errorf("its tree has no node, or more than %d", maxCountryNodes)
	errCountryTree  = errors.New("its tree is none: branches come together or lead back")
	errCountryNone  = errors.New("it names no country: a database of countries or cities has country.iso_code")
)

// readCountries makes a table of a MaxMind DB, of which it reads every network once. A request looks only into the table, so neither what
// a file is made of nor what becomes of it later can hold up a loop.
func readCountries(ctx context.Context, path string) (t *ip.CountryTable, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxCountryTime)
	defer cancel()
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	at, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !at.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case at.Size() > maxCountryBytes:
		return nil, errCountryBytes
	}
	text := make([]byte, at.Size())
	if _, err := io.ReadFull(file, text); err != nil {
		return nil, err
	}
	return parseCountries(ctx, text)
}

// parseCountries is readCountries of a file's bytes. ctx bounds the time.
func parseCountries(ctx context.Context, text []byte) (t *ip.CountryTable, err error) {
	defer func() {
		if p := recover(); p != nil { // the library's, on bytes that anybody may have written
			t, err = nil, fmt.Errorf("it is damaged: %v", p)
		}
	}()
	db, err := maxminddb.OpenBytes(text)
	if err != nil {
		return nil, err
	}
	nodes := db.Metadata.NodeCount
	if nodes == 0 || nodes > maxCountryNodes {
		return nil, errCountryNodes
	}
	t = ip.NewCountryTable()
	known := map[uintptr]string{}
	// Aliases and empty networks are visited, too: then each path through the tree gives a network or an error, and counting them bounds
	// the walk, whatever the nodes point at. A tree has one leaf more than nodes; the networks of IPv4 stand in it up to eight times.
	left := 8 * (nodes + 1)
	for n := range db.Networks(maxminddb.IncludeAliasedNetworks(), maxminddb.IncludeNetworksWithoutData()) {
		if left--; left == 0 {
			return nil, errCountryTree
		}
		if left%countryLookEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := n.Err(); err != nil {
			return nil, err
		}
		if !n.Found() {
			continue
		}
		code, seen := known[n.Offset()]
		if !seen {
			if err := n.DecodePath(&code, "country", "iso_code"); err != nil {
				return nil, err
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if len(known) < maxCountryRecords {
				known[n.Offset()] = code
			}
		}
		if p := n.Prefix(); code != "" && !p.Addr().Is4In6() {
			if err := t.Append(p, code); err != nil {
				return nil, err
			}
			if p.Addr() == netip.IPv6Unspecified() && p.Bits() <= 96 { // all of IPv4 is in it
				if err := t.Append(netip.PrefixFrom(netip.IPv4Unspecified(), 0), code); err != nil {
					return nil, err
				}
			}
		}
	}
	t.Close()
	if t.Len() == 0 {
		return nil, errCountryNone
	}
	return t, nil
}
