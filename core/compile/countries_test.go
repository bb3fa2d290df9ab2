package compile

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// countryDB writes a database of networks and their countries, as its makers do, with IPv4 at its aliases within IPv6.
func countryDB(t testing.TB, networks map[string]string) []byte {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", IncludeReservedNetworks: true, RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	for network, code := range networks {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		record := mmdbtype.Map{"continent": mmdbtype.Map{"code": mmdbtype.String("EU")}}
		if code != "" {
			record["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(code), "geoname_id": mmdbtype.Uint32(7)}
		}
		if err := w.Insert(n, record); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// putFile puts a file in the place of another, as whoever updates databases does.
func putFile(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".next", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

// TestCountriesRead: a database is read whole; networks without a country are in none.
func TestCountriesRead(t *testing.T) {
	c, err := parseCountries(context.Background(), countryDB(t, map[string]string{
		"192.0.2.0/24": "DE", "192.0.3.0/25": "AT", "198.51.100.0/24": "", "2001:db8::/32": "NO"}))
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]bool{"DE": true, "AT": true, "NO": true, "EU": false, "FR": false} {
		if c.Has(code) != want {
			t.Errorf("%s: %v", code, !want)
		}
	}
	// Three of IPv4 and what is around them, as many for each of the three aliases (2002::/16, 2001::/32 and ::ffff:0:0/96, the last of
	// which nobody looks for), and the one of IPv6.
	if n := c.Len(); n < 6 || n > 20 {
		t.Errorf("%d ranges", n)
	}
	for _, networks := range []map[string]string{{}, {"192.0.2.0/24": ""}} {
		if _, err := parseCountries(context.Background(), countryDB(t, networks)); err != errCountryNone {
			t.Errorf("a database of %v: %v", networks, err)
		}
	}
}

// TestCountriesWatch replaces the file: one that is right takes effect, one that is wrong leaves the one before in force and says why.
func TestCountriesWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "country.mmdb")
	right := countryDB(t, map[string]string{"192.0.2.0/24": "DE"})
	putFile(t, path, right)
	file := &countryFile{followed: &followed{followedKey: followedKey{"countries", path}}}
	if _, err := file.look(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	f := func(code, logged string) {
		t.Helper()
		text.Reset()
		for range 2 { // what is seen changed is read at the next look
			switched, err := file.look(context.Background(), false)
			file.note(log, switched, err)
		}
		if !file.countries.Table().Has(code) {
			t.Errorf("%s is not in force", code)
		}
		if got := text.String(); !strings.Contains(got, logged) || logged == "" && got != "" || strings.Count(got, "\n") > 1 {
			t.Errorf("log: %q, want %q", got, logged)
		}
	}
	before := file.countries.Table()
	if f("DE", ""); file.countries.Table() != before {
		t.Error("a file that has not changed was put in force again")
	}
	putFile(t, path, countryDB(t, map[string]string{"192.0.2.0/24": "AT"}))
	f("AT", "read again")
	putFile(t, path, right[:len(right)-100])
	f("AT", "of no use")
	f("AT", "") // once is enough
	putFile(t, path, nil)
	f("AT", "of no use")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f("AT", "no such file")
	putFile(t, path, right)
	f("DE", "read again")
}

// TestCountriesReload: a configuration is refused for a database that is wrong, with its place, but not for one that has become so while
// it was in force.
func TestCountriesReload(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "country.mmdb")
	text := "policies: { home: { ip: { countries: { file: " + path + ", allow: [DE, UK] } } } }\nroutes: [{ match: /*, use: [home], respond: {} }]\n"
	if _, err := b.compile(text); err == nil || !strings.Contains(err.Error(), "sluice.yaml:3:") || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("a database that is not there: %v", err)
	}
	putFile(t, path, countryDB(t, map[string]string{"192.0.2.0/24": "DE"}))
	first := b.apply(text)
	if log := b.log.String(); !strings.Contains(log, "country=UK") || strings.Contains(log, "country=DE") {
		t.Errorf("log: %s", log)
	}
	putFile(t, path, []byte("no database"))
	if second := b.apply(text); second.countries[path] != first.countries[path] || !second.countries[path].countries.Table().Has("DE") {
		t.Error("a reload has lost the countries that were in force")
	}
	b.apply("routes: [{ match: /*, respond: {} }]\n")
	if _, err := b.compile(text); err == nil || !strings.Contains(err.Error(), "cannot read") {
		t.Errorf("a database that is wrong: %v", err)
	}
}

// hostileTree is a database whose tree is of these pairs of records, 24 bits each: below the number of pairs another pair, at it nothing.
// Above stands the data, which names DE.
func hostileTree(t testing.TB, pairs [][2]uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range pairs {
		for _, r := range p {
			b.Write(binary.BigEndian.AppendUint32(nil, r)[1:])
		}
	}
	b.Write(make([]byte, 16))
	record := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("DE")}}
	about := mmdbtype.Map{"binary_format_major_version": mmdbtype.Uint16(2), "binary_format_minor_version": mmdbtype.Uint16(0),
		"node_count": mmdbtype.Uint32(len(pairs)), "record_size": mmdbtype.Uint16(24), "ip_version": mmdbtype.Uint16(6),
		"database_type": mmdbtype.String("Test"), "build_epoch": mmdbtype.Uint64(1), "languages": mmdbtype.Slice{}, "description": mmdbtype.Map{}}
	w := plainWriter{&b}
	if _, err := record.WriteTo(w); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\xab\xcd\xefMaxMind.com")
	if _, err := about.WriteTo(w); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plainWriter writes values without pointers to equal ones.
type plainWriter struct{ *bytes.Buffer }

func (w plainWriter) WriteOrWritePointer(t mmdbtype.DataType) (int64, error) { return t.WriteTo(w) }

// TestCountriesHostile: whatever a file holds, it is refused in a bounded time. Trees whose branches come together have 2^128 paths.
func TestCountriesHostile(t *testing.T) {
	f := func(what string, text []byte, want string) {
		t.Helper()
		if c, err := parseCountries(context.Background(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", what, c, err)
		}
	}
	ladder := func(levels, end uint32, pairs ...[2]uint32) (all [][2]uint32) {
		for i := range levels {
			all = append(all, [2]uint32{i + 1, i + 1})
		}
		all[levels-1] = [2]uint32{end, end}
		return append(all, pairs...)
	}
	data := func(nodes uint32) uint32 { return nodes + 16 }
	if _, err := parseCountries(context.Background(), hostileTree(t, [][2]uint32{{data(1), 1}})); err != nil {
		t.Fatalf("a tree of one node: %v", err)
	}
	f("a tree that leads back", hostileTree(t, [][2]uint32{{0, 0}}), "search tree")
	f("a tree that leads back at the end", hostileTree(t, [][2]uint32{{1, 2}, {2, 2}, {0, 0}}), "search tree")
	f("branches that come together, with nothing", hostileTree(t, ladder(128, 128)), errCountryTree.Error())
	f("branches that come together, with data", hostileTree(t, ladder(128, data(128))), errCountryTree.Error())
	f("branches that come together where IPv4 begins", hostileTree(t, ladder(97, 97)), errCountryTree.Error())
	f("branches that come together, and lead back", hostileTree(t, ladder(100, 3)), "search tree")
	f("a record behind the data", hostileTree(t, [][2]uint32{{1 << 20, 1}}), "")
	f("a record between tree and data", hostileTree(t, [][2]uint32{{5, 1}}), "")
	f("no node", hostileTree(t, nil), "")
	f("nothing", nil, "")
	f("a mark and no more", []byte("\xab\xcd\xefMaxMind.com"), "")
	right := countryDB(t, map[string]string{"192.0.2.0/24": "DE", "2001:db8::/32": "NO"})
	for n := 0; n < len(right); n += 1 + len(right)/200 {
		f("a file that was cut", right[:n], "")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := parseCountries(ended, right); err != context.Canceled {
		t.Errorf("nobody wants it any more: %v", err)
	}
}

// FuzzCountries: no bytes make the reading panic, or last.
func FuzzCountries(f *testing.F) {
	f.Add(countryDB(f, map[string]string{"192.0.2.0/24": "DE", "192.0.3.0/24": "", "2001:db8::/32": "NO"}))
	f.Add(hostileTree(f, [][2]uint32{{1, 2}, {2, 2}, {0, 0}}))
	f.Add(hostileTree(f, [][2]uint32{{17, 1}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseCountries(context.Background(), text)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil && strings.Contains(err.Error(), "damaged") {
			t.Logf("the library has panicked: %v", err)
		}
	})
}
