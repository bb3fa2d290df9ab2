package config

import (
	"maps"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const (
	maxEndpointFiles = 16 // of one upstream
	maxLabels        = 16 // of an endpoint or a subset
	maxLabelValue    = 128
)

// servicePrefix begins the address of an endpoint that is a name of SRV records.
const servicePrefix = "srv:"

// endpoints reads the list of an upstream's endpoints, or one.
func (d *decoder) endpoints(key string, n ast.Node, u *Upstream) {
	seen, files := map[string]Pos{}, map[string]Pos{}
	d.list(key, n, func(v ast.Node) {
		n := d.resolve(v)
		if n == nil {
			return
		}
		e, file := Endpoint{Weight: 1, Pos: d.at(n)}, ""
		if !d.endpoint(key, n, &e, &file) {
			return
		}
		if file != "" {
			d.endpointsFile(n, file, e, files, u)
			return
		}
		d.addEndpoint(n, e, seen, &u.Endpoints)
	})
}

func (d *decoder) addEndpoint(n ast.Node, e Endpoint, seen map[string]Pos, to *[]Endpoint) {
	if first, twice := seen[e.Address]; twice {
		d.problem(n, "give it a weight instead", "endpoint %q is given twice; first at %s", e.Address, first)
		return
	}
	seen[e.Address] = e.Pos
	if len(seen) > maxEndpoints {
		if len(seen) == maxEndpoints+1 {
			d.problem(n, "", "there are more than %d endpoints", maxEndpoints)
		}
		return
	}
	*to = append(*to, e)
}

// endpoint reads an address, or a map. Where file is not nil it may be the path of a file instead.
func (d *decoder) endpoint(key string, n ast.Node, e *Endpoint, file *string) bool {
	if !isMap(n) {
		return d.endpointAddress(key, n, &e.Address)
	}
	valid := "address weight priority zone labels"
	if file != nil {
		valid += " file"
	}
	hasAddress, ok := false, false
	var path, weight ast.Node
	known := d.mapping(key, n, valid, func(key string, k, v ast.Node) bool {
		switch key {
		case "address":
			hasAddress = true
			ok = d.endpointAddress(key, v, &e.Address)
		case "file":
			if path = k; file == nil {
				return false
			}
			ok = d.text(key, v, file)
			if ok && (*file == "" || strings.ContainsRune(*file, 0)) {
				d.problem(v, "", "%q is no path", clip(*file))
				ok = false
			}
		case "weight":
			weight = k
			d.integer(key, v, 0, 1000, &e.Weight)
		case "priority":
			d.integer(key, v, 0, maxTier, &e.Priority)
		case "zone":
			d.zoneName(key, v, &e.Zone)
		case "labels":
			d.labels(key, v, &e.Labels)
		default:
			return false
		}
		return true
	})
	switch {
	case !known:
	case hasAddress && path != nil:
		d.problem(path, "drop one of the two", "an endpoint has no %q beside its %q", "file", "address")
		return false
	case !hasAddress && path == nil:
		d.problem(n, "", "an endpoint has no %q", "address")
	case weight != nil && strings.HasPrefix(e.Address, servicePrefix):
		d.problem(weight, "leave it out", "SRV records have weights of their own")
	}
	return ok
}

// labels reads a map of names to values, and adds it to what there is.
func (d *decoder) labels(key string, n ast.Node, to *map[string]string) {
	all := map[string]string{}
	ok := d.mapping(key, n, "", func(name string, k, v ast.Node) bool {
		var value string
		switch {
		case len(name) > maxLabelBytes || name == "" || strings.Trim(name, wordBytes+"./") != "":
			d.problem(k, "letters, digits, '.', '_', '/' and '-', at most 63", "%q is no name of a label", clip(name))
		case !d.text(name, v, &value):
		case value == "" || len(value) > maxLabelValue || !isGraphic(value):
			d.problem(v, "", "%q is no value of a label", clip(value))
		case len(all) == maxLabels:
			d.problem(k, "", "there are more than %d labels", maxLabels)
		default:
			all[name] = value
		}
		return true
	})
	if ok && len(all) == 0 {
		return
	}
	merged := maps.Clone(*to) // which others may have, too
	if merged == nil {
		merged = all
	} else {
		maps.Copy(merged, all)
	}
	if ok {
		*to = merged
	}
}

// serviceAddress reads what follows srv: in an address.
func (d *decoder) serviceAddress(n ast.Node, name string, to *string) bool {
	name = strings.ToLower(name)
	_, err := netip.ParseAddr(name)
	wrong := hostProblem(name)
	switch {
	case err == nil || strings.HasPrefix(name, "["):
		wrong = "an address has no SRV records: leave out " + servicePrefix
	case strings.Contains(name, ":"):
		wrong = "SRV records have ports of their own: leave out the port"
	}
	if wrong != "" {
		d.problem(n, wrong, "%q is no name of SRV records", clip(name))
		return false
	}
	*to = servicePrefix + name
	return true
}

// EndpointsFile holds endpoints that may change while the configuration is in force: a list, in YAML or JSON, with all that stands in
// `endpoints` but other files.
type EndpointsFile struct {
	Path     string
	Defaults Endpoint // of those in it: weight, priority, zone and labels
}

// endpointsFile reads the path, and the file. As long as that is not there or wrong it has no endpoints, which is not a mistake of the
// configuration: somebody else writes it.
func (d *decoder) endpointsFile(n ast.Node, path string, defaults Endpoint, seen map[string]Pos, u *Upstream) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(d.src.name), path)
	}
	path = filepath.Clean(path)
	if first, twice := seen[path]; twice {
		d.problem(n, "", "file %q is given twice; first at %s", clip(path), first)
		return
	}
	seen[path] = defaults.Pos
	if len(u.Files) == maxEndpointFiles {
		d.problem(n, "", "an upstream has at most %d files of endpoints", maxEndpointFiles)
		return
	}
	f := EndpointsFile{Path: path, Defaults: defaults}
	u.Files = append(u.Files, f)
	if d.env.ReadFile == nil {
		return // whoever asks has no files
	}
	text, err := d.env.readFile(path)
	if err != nil {
		d.warnAt(defaults.Pos, "", "cannot read %q: %s; until it is there upstream %q has none of its endpoints", clip(path), cause(err), u.Name)
		return
	}
	src, _, inside := f.parse(text)
	d.sources = append(d.sources, src)
	for _, p := range inside {
		p.Warning = true
		d.add(p)
	}
}

// ReadEndpointsFile reads a file of endpoints as Load does: one byte more at most than is accepted.
func ReadEndpointsFile(path string) ([]byte, error) { return readFile(path) }

// Read reads the text of the file. It gives the endpoints, one at least, or what is wrong.
func (f *EndpointsFile) Read(text []byte) ([]Endpoint, Problems) {
	src, list, inside := f.parse(text)
	if len(inside) == 0 {
		return list, nil
	}
	return nil, (&collector{list: inside, errors: len(inside)}).result([]*source{src})
}

func (f *EndpointsFile) parse(text []byte) (*source, []Endpoint, []Problem) {
	src, problem := newSource(f.Path, text)
	if problem != nil {
		return src, nil, []Problem{*problem}
	}
	body, problem := parseText(f.Path, segment{text: src.text})
	if problem != nil {
		return src, nil, []Problem{*problem}
	}
	l := &loader{maxNodes: spareNodes + nodesPerByte*len(src.text)}
	d := &decoder{loader: l, src: src, anchors: map[string]ast.Node{}}
	if body == nil {
		d.problemAt(Pos{File: f.Path, Line: 1, Column: 1}, "", "the file holds no endpoints")
		return src, nil, l.list
	}
	if strings.Contains(src.text, "&") {
		d.collectAnchors(body)
	}
	list, endpoints := d.resolve(body), []Endpoint(nil)
	if seq, ok := list.(*ast.SequenceNode); ok {
		seen := map[string]Pos{}
		d.list("the file", seq, func(v ast.Node) {
			n := d.resolve(v)
			if n == nil {
				return
			}
			e := f.Defaults
			e.Pos = d.at(n)
			if d.endpoint("the file", n, &e, nil) {
				d.addEndpoint(n, e, seen, &endpoints)
			}
		})
	} else if list != nil {
		d.problem(list, `write a list: ["10.0.0.1:80", "10.0.0.2:80"]`, "a file of endpoints holds a list, not %s", describe(list))
	}
	return src, endpoints, l.list
}
