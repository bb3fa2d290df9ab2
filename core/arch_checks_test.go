package core_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strconv"
	"strings"
)

// source is one parsed file.
type source struct {
	path  string // from the module's root
	test  bool
	set   *token.FileSet
	file  *ast.File
	lines int
	names map[string]string // import path by the name that the file uses
}

func parse(set *token.FileSet, name, text string) (*source, error) {
	s := &source{path: name, test: strings.HasSuffix(name, "_test.go"), set: set, names: map[string]string{}}
	f, err := parser.ParseFile(s.set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("cannot parse %s: %w", name, err)
	}
	s.file = f
	s.lines = strings.Count(text, "\n")
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		as := path.Base(p)
		if i.Name != nil {
			as = i.Name.Name
		}
		s.names[as] = p
	}
	return s, nil
}

func (s *source) folder() string { return path.Dir(s.path) }

func (s *source) violation(at token.Pos, construct, format string, args ...any) violation {
	return violation{fmt.Sprintf("%s:%d", s.path, s.set.Position(at).Line), construct, fmt.Sprintf(format, args...)}
}

// within says whether a file or folder is one of the roots, or below one.
func within(p string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return p == root || strings.HasPrefix(p, root+"/") })
}

// rootOf gives the root that p is within: a policy's own folder for policies, "" for none.
func rootOf(p string, roots []string) string {
	for _, root := range roots {
		if within(p, []string{root}) {
			if rest, below := strings.CutPrefix(p, root+"/"); below && root == "core/policy" {
				first, _, _ := strings.Cut(rest, "/")
				return root + "/" + first
			}
			return root
		}
	}
	return ""
}

// mayImport is the rule of the tree: mechanisms <- core <- stages <- server <- cmd. known says whether from has a place.
func mayImport(from, to string) (may, known bool) {
	basis := to == "core" || to == "core/loop" || within(to, mechanisms)
	switch {
	case within(from, mechanisms):
		return within(to, []string{rootOf(from, mechanisms)}), true
	case within(from, []string{"core/loop", "core/config", "core/discovery", "core/leak", "core/vacant", "bench"}):
		return within(to, []string{rootOf(from, []string{"core/loop", "core/config", "core/discovery", "core/leak", "core/vacant", "bench"})}), true
	case from == "core":
		return to == "core/loop" || within(to, mechanisms), true
	case within(from, stages):
		return basis || within(to, []string{rootOf(from, stages)}), true
	}
	for top, more := range above {
		if within(from, []string{top}) {
			return basis || within(to, more) || within(to, []string{top}), true
		}
	}
	return false, false
}

func checkImports(s *source) (all []violation) {
	if _, known := mayImport(s.folder(), ""); !known {
		return []violation{s.violation(s.file.Package, "place", "the package has no place in the tree: see DESIGN.md, section 2")}
	}
	if s.test { // tests may join what they test
		return nil
	}
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if to, ours := strings.CutPrefix(p, module+"/"); ours {
			if may, _ := mayImport(s.folder(), to); !may {
				all = append(all, s.violation(i.Pos(), "import", "%s may not import %s", s.folder(), to))
			}
		}
	}
	return all
}

// forbiddenNames are what of the standard library blocks, sleeps, starts goroutines, or does I/O; * stands for the rest
// of a name.
var forbiddenNames = map[string][]string{
	"sync":     {"*"},
	"time":     {"Sleep", "After*", "Tick", "New*"},
	"net":      {"Dial*", "Listen*", "Lookup*", "Resolve*", "DefaultResolver", "File*"},
	"net/http": {"*"},
	"os":       {"*"},
	"os/exec":  {"*"},
	"io/fs":    {"*"},
	"log":      {"*"},
	"context":  {"With*"},
	"runtime":  {"LockOSThread", "Goexit", "Gosched", "GC"},
}

func forbidden(importPath, name string) bool {
	return slices.ContainsFunc(forbiddenNames[importPath], func(pattern string) bool {
		start, open := strings.CutSuffix(pattern, "*")
		return name == pattern || open && strings.HasPrefix(name, start)
	})
}

// checkLoopSide finds what must not be done on a loop.
func checkLoopSide(s *source) (all []violation) {
	if s.test || s.folder() != "core" && !within(s.path, loopSide) {
		return nil
	}
	add := func(n ast.Node, construct string) {
		all = append(all, s.violation(n.Pos(), construct, "not on a loop"))
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n, "go")
		case *ast.ChanType:
			add(n, "chan")
		case *ast.SelectStmt:
			add(n, "select")
		case *ast.SendStmt:
			add(n, "<-")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				add(n, "<-")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			from := s.names[x.Name]
			switch {
			case forbidden(from, n.Sel.Name):
				add(n, path.Base(from)+"."+n.Sel.Name)
			case from == "fmt" && (s.folder() == "core" || within(s.path, hot)):
				add(n, "fmt."+n.Sel.Name)
			}
		}
		return true
	})
	return all
}

func checkSize(s *source) (all []violation) {
	if s.lines > maxFileLines {
		all = append(all, s.violation(s.file.Package, "file", "%d lines, at most %d are allowed", s.lines, maxFileLines))
	}
	if s.test {
		return all
	}
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			n := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			if n > maxFunctionLines {
				all = append(all, s.violation(f.Pos(), "function", "%s has %d lines, at most %d are allowed", f.Name.Name, n, maxFunctionLines))
			}
		}
	}
	return all
}

func checkNames(s *source) (all []violation) {
	for _, name := range []string{strings.TrimSuffix(s.file.Name.Name, "_test"), path.Base(s.folder())} {
		if slices.Contains(bannedNames, name) {
			return []violation{s.violation(s.file.Package, "name", "a package named %s says nothing", name)}
		}
	}
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			all = append(all, s.violation(f.Pos(), "init", "nothing happens by itself"))
		}
	}
	return all
}

// noImports stands for every imported package: the types of this one's own names need no more.
type noImports struct{}

func (noImports) Import(p string) (*types.Package, error) {
	return nil, fmt.Errorf("%s is not looked at", p)
}

// checkVariables finds package variables of a package's files that are changed after their declaration, or that by their
// type are there to be changed.
func checkVariables(files []*source) (all []violation) {
	var parsed []*ast.File
	for _, s := range files {
		parsed = append(parsed, s.file)
	}
	uses := map[*ast.Ident]types.Object{}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}}
	pkg, _ := conf.Check(files[0].folder(), files[0].set, parsed, &types.Info{Uses: uses})
	for _, s := range files {
		changed := func(e ast.Expr) {
			root := rootIdent(e)
			if root == nil {
				return
			}
			if v, ok := uses[root].(*types.Var); ok && v.Parent() == pkg.Scope() {
				all = append(all, s.violation(root.Pos(), "variable", "%s belongs to the package and is changed", root.Name))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					changed(e)
				}
			case *ast.IncDecStmt:
				changed(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					changed(n.Key)
					changed(n.Value)
				}
			}
			return true
		})
		all = append(all, s.sharedState()...)
	}
	return all
}

// sharedState finds package variables whose type says that they are changed: atomics, locks, channels, pools.
func (s *source) sharedState() (all []violation) {
	for _, d := range s.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if v.Names[0].Name == "_" {
				continue
			}
			for _, root := range append([]ast.Expr{v.Type}, v.Values...) {
				if construct := s.stateful(root); construct != "" {
					all = append(all, s.violation(v.Pos(), "variable", "%s belongs to the package and is a %s", v.Names[0].Name, construct))
				}
			}
		}
	}
	return all
}

// stateful looks through the type or value of a package variable, but not into functions.
func (s *source) stateful(e ast.Expr) (construct string) {
	if e == nil {
		return ""
	}
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit, *ast.FuncType:
			return false
		case *ast.ChanType:
			construct = "channel"
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (s.names[x.Name] == "sync" || s.names[x.Name] == "sync/atomic") && !strings.HasPrefix(n.Sel.Name, "Once") {
				construct = x.Name + "." + n.Sel.Name
			}
		}
		return construct == ""
	})
	return construct
}

func rootIdent(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// selfEvident are methods whose meaning the standard library has fixed.
var selfEvident = []string{"String", "Error", "Unwrap"}

// checkDocs finds exported names without a comment: functions, methods of exported types, types, constants, variables. The
// values of an enumeration are explained by its type.
func checkDocs(s *source) (all []violation) {
	if s.test {
		return nil
	}
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if !d.Name.IsExported() || d.Doc != nil || slices.Contains(selfEvident, d.Name.Name) {
				continue
			}
			if d.Recv == nil || receiver(d).IsExported() {
				all = append(all, s.violation(d.Pos(), "comment", "%s has none", d.Name.Name))
			}
		case *ast.GenDecl:
			enumeration := false
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.CONST && (v.Type != nil || v.Values != nil) {
					_, enumeration = v.Type.(*ast.Ident)
				}
				if name, bare := undocumented(spec); bare && d.Doc == nil && !enumeration {
					all = append(all, s.violation(spec.Pos(), "comment", "%s has none", name))
				}
			}
		}
	}
	return all
}

// receiver gives the name of a method's type.
func receiver(f *ast.FuncDecl) *ast.Ident {
	e := f.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x
		default:
			return &ast.Ident{Name: "_"}
		}
	}
}

// undocumented gives the first exported name of a declaration without a comment of its own.
func undocumented(spec ast.Spec) (name string, bare bool) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		return spec.Name.Name, spec.Name.IsExported() && spec.Doc == nil && spec.Comment == nil
	case *ast.ValueSpec:
		for _, n := range spec.Names {
			if n.IsExported() && spec.Doc == nil && spec.Comment == nil {
				return n.Name, true
			}
		}
	}
	return "", false
}
