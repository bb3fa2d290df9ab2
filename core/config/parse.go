package config

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth        = 64   // of flow collections, and of block collections that start on one line
	maxKeys         = 4096 // of one block mapping inside of a segment
	maxParseWorkers = 8
)

// parsed is what became of a segment: syntax trees, one unless some of it is wrong, and why others are missing.
type parsed struct {
	bodies   []ast.Node
	problems []Problem
}

// parseSegments parses the segments, several at a time, and gives them to visit in order. It returns when all its
// goroutines have ended. At most two trees for each goroutine exist at once.
func parseSegments(file string, segments []segment, visit func(segment, parsed)) {
	workers := min(runtime.GOMAXPROCS(0), maxParseWorkers, len(segments))
	if workers <= 1 {
		for _, seg := range segments {
			visit(seg, parseSegment(file, seg))
		}
		return
	}
	results := make([]chan parsed, len(segments))
	for i := range results {
		results[i] = make(chan parsed, 1)
	}
	window := make(chan struct{}, 2*workers)
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				window <- struct{}{}
				i := int(next.Add(1)) - 1
				if i >= len(segments) {
					<-window
					return
				}
				results[i] <- parseSegment(file, segments[i])
			}
		})
	}
	for i, seg := range segments {
		visit(seg, <-results[i])
		<-window
	}
	running.Wait()
}

// parseSegment parses a segment of items as if each stood by itself, which it does only where the whole is not right:
// where it has an error, or where the parser, more lenient than YAML, let a quoted string or a bracket run over the start
// of an item. So what is accepted does not depend on where a file happens to be cut.
func parseSegment(file string, seg segment) parsed {
	body, problem := parseText(file, seg)
	if problem == nil && body == nil {
		return parsed{}
	}
	if problem == nil && (seg.of == "" || countItems(seg.of, body) == seg.items) {
		return parsed{bodies: []ast.Node{body}}
	}
	if seg.of == "" || seg.items <= 1 {
		if problem == nil {
			problem = &Problem{Pos: position(file, body), Message: "not all of this is indented as YAML wants it"}
		}
		return parsed{problems: []Problem{*problem}}
	}
	var all parsed
	for _, single := range seg.single() {
		one := parseSegment(file, single)
		all.bodies = append(all.bodies, one.bodies...)
		all.problems = append(all.problems, one.problems...)
	}
	return all
}

func countItems(of string, body ast.Node) int {
	switch x := body.(type) {
	case *ast.SequenceNode:
		if of == "routes" {
			return len(x.Values)
		}
	case *ast.MappingNode:
		if of != "routes" {
			return len(x.Values)
		}
	}
	return -1
}

// parseText returns a tree whose positions count from the start of the file; nil for nothing but comments.
func parseText(file string, seg segment) (body ast.Node, problem *Problem) {
	defer func() {
		if cause := recover(); cause != nil { // the parser is not ours; a panic in it must not end a gateway on reload
			body, problem = nil, &Problem{Pos: posAt(file, seg.linesBefore+1, 1),
				Message: fmt.Sprintf("cannot parse this part of the file: %s", clip(fmt.Sprint(cause)))}
		}
	}()
	tokens := lexer.Tokenize(seg.text)
	if problem := shiftTokens(file, tokens, seg.linesBefore); problem != nil {
		return nil, problem
	}
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(file, seg, err)
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, &Problem{Pos: position(file, doc.Body), Message: "a file holds one document"}
		}
		body = doc.Body
	}
	return body, nil
}

// shiftTokens makes lines count from the start of the file, and refuses nesting and maps that would take the parser time
// and stack beyond measure: it recurses, keeps a path for each node, and moves all keys of a block mapping for each key.
func shiftTokens(file string, tokens token.Tokens, lines int) *Problem {
	flow, run := 0, 0
	var last *token.Position
	var open []blockMap
	for i, tk := range tokens {
		if tk.Position != last {
			last = tk.Position
			last.Line += lines
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
			run = 0
		case token.SequenceEndType, token.MappingEndType:
			flow--
			run = 0
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType, token.AliasType:
			run++
		case token.MappingValueType:
			run = 0
			if flow == 0 && i > 0 {
				open = countKey(open, tokens[i-1].Position.Column)
				if open[len(open)-1].keys > maxKeys {
					return &Problem{Pos: posAt(file, last.Line, last.Column),
						Message: fmt.Sprintf("a map of more than %d keys", maxKeys)}
				}
			}
		default:
			run = 0
		}
		if tk.Type == token.SequenceEntryType && flow == 0 {
			open = closeMaps(open, last.Column)
		}
		if flow > maxDepth || run > maxDepth {
			return &Problem{Pos: posAt(file, last.Line, last.Column),
				Message: fmt.Sprintf("nested more than %d deep", maxDepth)}
		}
	}
	return nil
}

// blockMap is a block mapping whose keys are being counted.
type blockMap struct{ column, keys int }

func closeMaps(open []blockMap, column int) []blockMap {
	for len(open) > 0 && open[len(open)-1].column > column {
		open = open[:len(open)-1]
	}
	return open
}

func countKey(open []blockMap, column int) []blockMap {
	open = closeMaps(open, column)
	if len(open) == 0 || open[len(open)-1].column < column {
		open = append(open, blockMap{column: column})
	}
	open[len(open)-1].keys++
	return open
}

// syntaxProblem words the parser's error, with a hint for the mistakes that this grammar invites.
func syntaxProblem(file string, seg segment, err error) *Problem {
	p := &Problem{Pos: posAt(file, seg.linesBefore+1, 1)}
	var failure yaml.Error
	if !errors.As(err, &failure) {
		p.Message, _, _ = strings.Cut(err.Error(), "\n")
		return p
	}
	// Error() of a yaml.Error prints the whole source in colours, in more than linear time.
	message, _, _ := strings.Cut(failure.GetMessage(), "\n")
	p.Message = "syntax: " + strings.ReplaceAll(message, "'\t'", "'tab'")
	tk := failure.GetToken()
	if tk == nil || tk.Position == nil {
		return p
	}
	p.Pos = posAt(file, max(tk.Position.Line, 1), max(tk.Position.Column, 1))
	if strings.Contains(message, "tab") || strings.Contains(message, "\t") {
		p.Hint = "use spaces instead of tabs"
	}
	for _, quotable := range []string{"alias", "',' or '}'", "reserved character", "mapping value is not allowed", "unexpected scalar", "invalid key"} {
		if strings.Contains(message, quotable) {
			p.Hint = `a value that starts with one of * & ! % @ :, or holds one of { } [ ] , or ": ", goes in quotes`
		}
	}
	return p
}

// position returns where a node starts.
func position(file string, n ast.Node) Pos {
	switch x := n.(type) {
	case *ast.MappingNode:
		if !x.IsFlowStyle && len(x.Values) > 0 {
			return position(file, x.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(file, x.Key)
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return posAt(file, max(tk.Position.Line, 1), max(tk.Position.Column, 1))
	}
	return posAt(file, 1, 1)
}
