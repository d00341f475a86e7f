package main

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// table writes records: on a terminal as columns under a header, otherwise
// separated by tabs without one, or as JSON.
type table struct {
	out    *output
	header []string
	width  int // of the terminal, where rows must fit it; else 0
	cut    int // the last so many columns are cut where a row is wider than that
	rows   [][]string
	shown  bool // the header was
}

func (o *output) table(header ...string) *table { return &table{out: o, header: header} }

// aligned says whether rows are columns under a header.
func (t *table) aligned() bool { return t.out.terminal && !t.out.json }

// fit has the last columns cut, so many of them, where a row is wider than the terminal.
func (t *table) fit(columns int) { t.width, t.cut = terminalWidth(t.out.file), columns }

// terminalWidth is how many columns a terminal has, 80 where it does not say.
func terminalWidth(f *os.File) int {
	if f != nil {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// rowsTogether is how many rows share their columns' widths; what is shown of a
// long table need not wait for its end.
const rowsTogether = 200

func (t *table) row(v any, cells ...string) error {
	for i, c := range cells {
		if cells[i] = printable(c); cells[i] == "" {
			cells[i] = "-"
		}
	}
	if !t.aligned() {
		return t.out.record(v, cells...)
	}
	if t.rows = append(t.rows, cells); len(t.rows) < rowsTogether {
		return nil
	}
	return t.end()
}

// end writes the rows that were not written yet.
func (t *table) end() error {
	if len(t.rows) == 0 {
		return nil
	}
	rows := t.rows
	if t.rows = nil; !t.shown {
		t.shown = true
		rows = append([][]string{upper(t.header)}, rows...)
	}
	widths := columnWidths(rows)
	if t.cut > 0 {
		narrow(widths, t.cut, t.width)
	}
	var b strings.Builder
	for _, cells := range rows {
		line := ""
		for i, c := range cells {
			c = cutText(c, widths[i])
			line += c + strings.Repeat(" ", widths[i]-textWidth(c)+gap)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return t.out.text(b.String())
}

func upper(words []string) []string {
	words = slices.Clone(words)
	for i, w := range words {
		words[i] = strings.ToUpper(w)
	}
	return words
}

// gap is how many spaces part two columns.
const gap = 2

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, cells := range rows {
		for i, c := range cells {
			widths[i] = max(widths[i], textWidth(c))
		}
	}
	return widths
}

// leastWidth is what is left of a column that is cut, however narrow the terminal is.
const leastWidth = 8

// narrow shares out what the other columns leave of the terminal's width among the last
// ones, the narrowest first: each has an equal part of what is left.
func narrow(widths []int, cut, width int) {
	left := width - gap*(len(widths)-1)
	for _, w := range widths[:len(widths)-cut] {
		left -= w
	}
	last := widths[len(widths)-cut:]
	order := make([]int, cut)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(last[a], last[b]) })
	for n, i := range order {
		last[i] = min(last[i], max(left/(cut-n), leastWidth))
		left -= last[i]
	}
}

// textWidth is how many columns of a terminal a text takes.
func textWidth(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && (unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) || r >= 0xff01 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1faff):
		return 2
	}
	return 1
}

// cutText is the text, or where it is wider its beginning and an ellipsis.
func cutText(s string, width int) string {
	if textWidth(s) <= width {
		return s
	}
	n := 0
	for i, r := range s {
		if n += runeWidth(r); n > width-1 {
			return s[:i] + "…"
		}
	}
	return s
}
