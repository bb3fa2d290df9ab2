package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// integer reads a whole number, written in decimal digits.
func (d *decoder) integer(key string, n ast.Node, low, high int64, to *int) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	written := n.GetToken().Value
	if _, ok := n.(*ast.IntegerNode); !ok && (n.GetToken().Type != token.StringType || !isDigits(written)) { // too long for it
		d.wrongType(key, n, "a whole number")
		return
	}
	v, err := strconv.ParseInt(written, 10, 64)
	leadingZero := len(written) > 1 && strings.TrimLeft(written, "+-")[0] == '0'
	if (err != nil || leadingZero) && !strings.Contains(fmt.Sprint(err), "range") {
		d.problem(n, "", "%q must be written in decimal digits, not as %s", key, clip(written))
		return
	}
	if err != nil || v < low || v > high {
		d.problem(n, "", "%q must be from %d to %d", key, low, high)
		return
	}
	*to = int(v)
}

// fraction reads a number within bounds.
func (d *decoder) fraction(key string, n ast.Node, low, high float64, to *float64) {
	n = d.resolve(n)
	switch n.(type) {
	case nil:
		return
	case *ast.IntegerNode, *ast.FloatNode:
		if v, err := strconv.ParseFloat(n.GetToken().Value, 64); err == nil && v >= low && v <= high {
			*to = v
			return
		}
	}
	d.problem(n, "", "%q must be a number from %s to %s", key, formatShare(low), formatShare(high))
}

// percent reads 50% within bounds. A plain number is refused: nobody could say whether 1 is all or next to nothing.
func (d *decoder) percent(key string, n ast.Node, low, high float64, to *float64) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	if s, ok := n.(*ast.StringNode); ok {
		number, is := strings.CutSuffix(s.Value, "%")
		if v, err := strconv.ParseFloat(number, 64); is && err == nil && v >= low && v <= high && strings.Trim(number, "0123456789.") == "" {
			*to = v
			return
		}
	}
	d.problem(n, "write a share as 50%", "%q must be from %s%% to %s%%", key, formatShare(low), formatShare(high))
}

// percentOrOff reads 50%, or off for 0.
func (d *decoder) percentOrOff(key string, n ast.Node, low float64, to *float64) {
	n = d.resolve(n)
	if n == nil {
		return
	}
	if s, ok := n.(*ast.StringNode); ok && s.Value == "off" {
		*to = 0
		return
	}
	d.percent(key, n, low, 100, to)
}

// wholePercent reads 50%, without fractions, up to 100%.
func (d *decoder) wholePercent(key string, n ast.Node, low int, to *int) {
	f := float64(*to)
	d.percent(key, n, float64(low), 100, &f)
	if f != float64(int(f)) {
		d.problem(n, "", "%q must be whole percent", key)
		return
	}
	*to = int(f)
}

// formatShare writes a number, or the number of a percentage, as it is read.
func formatShare(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
