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
	maxDepth        = 64 // of flow collections, and of block collections that start on one line
	maxParseWorkers = 8
)

// parsed is a segment's syntax tree, or why there is none. body is nil for a segment of comments.
type parsed struct {
	body    ast.Node
	problem *Problem
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

// parseSegment returns a tree whose positions count from the start of the file.
func parseSegment(file string, seg segment) (result parsed) {
	defer func() {
		if cause := recover(); cause != nil { // the parser is not ours; a panic in it must not end a gateway on reload
			result = parsed{problem: &Problem{Pos: Pos{File: file, Line: seg.linesBefore + 1, Column: 1},
				Message: fmt.Sprintf("cannot parse this part of the file: %s", clip(fmt.Sprint(cause)))}}
		}
	}()
	tokens := lexer.Tokenize(seg.text)
	if p := shiftTokens(file, tokens, seg.linesBefore); p != nil {
		return parsed{problem: p}
	}
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return parsed{problem: syntaxProblem(file, seg, err)}
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if result.body != nil {
			return parsed{problem: &Problem{Pos: position(file, doc.Body), Message: "a file holds one document"}}
		}
		result.body = doc.Body
	}
	return result
}

// shiftTokens makes lines count from the start of the file, and refuses nesting that would take the parser, which
// recurses and keeps a path for each node, time and stack beyond measure.
func shiftTokens(file string, tokens token.Tokens, lines int) *Problem {
	flow, run := 0, 0
	var last *token.Position
	for _, tk := range tokens {
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
		default:
			run = 0
		}
		if flow > maxDepth || run > maxDepth {
			return &Problem{Pos: Pos{File: file, Line: last.Line, Column: last.Column},
				Message: fmt.Sprintf("nested more than %d deep", maxDepth)}
		}
	}
	return nil
}

// syntaxProblem words the parser's error, with a hint for the mistakes that this grammar invites.
func syntaxProblem(file string, seg segment, err error) *Problem {
	p := &Problem{Pos: Pos{File: file, Line: seg.linesBefore + 1, Column: 1}, Message: err.Error()}
	var failure yaml.Error
	if !errors.As(err, &failure) {
		p.Message, _, _ = strings.Cut(p.Message, "\n")
		return p
	}
	message, _, _ := strings.Cut(failure.GetMessage(), "\n")
	p.Message = "syntax: " + strings.ReplaceAll(message, "\t", "\\t")
	tk := failure.GetToken()
	if tk == nil || tk.Position == nil {
		return p
	}
	p.Pos.Line, p.Pos.Column = max(tk.Position.Line, 1), max(tk.Position.Column, 1)
	switch {
	case strings.Contains(message, "\t"):
		p.Hint = "indent with spaces"
	case strings.Contains(message, "alias"):
		p.Hint = `a value that starts with * goes in quotes: "*"`
	case strings.Contains(message, "',' or '}'"), strings.Contains(message, "reserved character"),
		strings.Contains(message, "mapping value is not allowed"):
		p.Hint = `a value with {, }, [, ], a comma, ": " or a leading @ or % goes in quotes`
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
	pos := Pos{File: file, Line: 1, Column: 1}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		pos.Line, pos.Column = max(tk.Position.Line, 1), max(tk.Position.Column, 1)
	}
	return pos
}
