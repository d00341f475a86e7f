// Package plot draws the time that an entry takes against the backlog, as SVG.
package plot

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Point is the time that an entry takes, in milliseconds, at a backlog.
type Point struct{ Backlog, Cost float64 }

// Series is a line of the plot.
type Series struct {
	Name   string
	Points []Point
}

// colors can be distinguished by most colour-blind people.
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666"}

// The picture, in pixels.
const (
	width, height            = 640, 400
	left, right, top, bottom = 70, 500, 50, 340
)

// Costs returns an SVG picture of the series, with two lines of text above. Both axes are
// logarithmic, over whole decades.
func Costs(title, below string, all ...Series) string {
	var d drawing
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`, width, height, width, height)
	d.printf(`<rect width="%d" height="%d" fill="white"/>`, width, height)
	d.text(left, 20, "start", title)
	d.text(left, 38, "start", below)

	var points []Point
	for _, s := range all {
		points = append(points, s.Points...)
	}
	x := newScale(points, func(p Point) float64 { return p.Backlog }, left, right)
	y := newScale(points, func(p Point) float64 { return p.Cost }, bottom, top)
	for decade := x.low; decade <= x.high; decade++ {
		at := x.at(math.Pow10(decade))
		d.line(at, top, at, bottom, "#dddddd")
		d.text(at, bottom+18, "middle", number(math.Pow10(decade)))
	}
	for decade := y.low; decade <= y.high; decade++ {
		at := y.at(math.Pow10(decade))
		d.line(left, at, right, at, "#dddddd")
		d.text(left-8, at+4, "end", number(math.Pow10(decade))+" ms")
	}
	d.text((left+right)/2, bottom+42, "middle", "entries in the queue")
	d.line(left, bottom, right, bottom, "black")
	d.line(left, top, left, bottom, "black")
	for i, s := range all {
		d.series(s, x, y, i)
	}
	d.printf("</svg>")
	return d.String()
}

// drawing collects the text of an SVG picture.
type drawing struct{ strings.Builder }

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *drawing) text(x, y float64, anchor, words string) {
	d.printf(`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, escape(words))
}

func (d *drawing) line(x1, y1, x2, y2 float64, color string) {
	d.printf(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`, x1, y1, x2, y2, color)
}

// series draws a line and its points, and writes its name beside the picture.
func (d *drawing) series(s Series, x, y scale, number int) {
	color := colors[number%len(colors)]
	points := slices.Clone(s.Points)
	slices.SortStableFunc(points, func(a, b Point) int {
		if a.Backlog < b.Backlog {
			return -1
		}
		return 1
	})
	var path []string
	for _, p := range points {
		path = append(path, fmt.Sprintf("%.1f,%.1f", x.at(p.Backlog), y.at(p.Cost)))
	}
	d.printf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(path, " "), color)
	for _, p := range points {
		d.printf(`<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%.3g ms at %.0f</title></circle>`, x.at(p.Backlog), y.at(p.Cost), color, p.Cost, p.Backlog)
	}
	if s.Name != "" {
		at := float64(top + 10 + 20*number)
		d.line(right+12, at, right+30, at, color)
		d.text(right+36, at+4, "start", s.Name)
	}
}

// leastValue is drawn instead of 0, which has no logarithm.
const leastValue = 1e-6

// scale is a logarithmic scale over whole decades. It maps values to pixels.
type scale struct {
	low, high int     // exponents
	from, to  float64 // pixels
}

func newScale(points []Point, of func(Point) float64, from, to float64) scale {
	s := scale{from: from, to: to}
	for i, p := range points {
		v := math.Log10(max(of(p), leastValue))
		low, high := int(math.Floor(v)), int(math.Ceil(v))
		if i == 0 {
			s.low, s.high = low, high
		}
		s.low, s.high = min(s.low, low), max(s.high, high)
	}
	if s.low == s.high {
		s.high++
	}
	return s
}

// at returns the pixel of a value.
func (s scale) at(v float64) float64 {
	part := (math.Log10(max(v, leastValue)) - float64(s.low)) / float64(s.high-s.low)
	return s.from + part*(s.to-s.from)
}

// number formats a power of ten with thousands separators.
func number(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%g", v)
	}
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// escape makes XML text of any string. It replaces characters that XML does not allow.
func escape(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == '\ufffe' || r == '\uffff' {
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
