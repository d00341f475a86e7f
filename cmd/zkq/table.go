package main

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// table writes rows: on a terminal as aligned columns under a header, elsewhere separated
// by tabs without a header, or as JSON.
type table struct {
	out    *output
	header []string
	width  int        // columns of the terminal, if rows must fit it; else 0
	cut    int        // number of trailing columns to cut where a row is wider
	rows   [][]string // not yet written
	shown  bool       // the header has been written
}

// table returns a table on o. Call row for each row, then end.
func (o *output) table(header ...string) *table { return &table{out: o, header: header} }

// aligned reports whether the table has aligned columns and a header.
func (t *table) aligned() bool { return t.out.terminal && !t.out.json }

// fit makes the table cut this number of trailing columns so that rows fit the terminal.
func (t *table) fit(columns int) { t.width, t.cut = terminalWidth(t.out.file), columns }

// terminalWidth returns the number of columns of a terminal, or 80 if that is unknown.
func terminalWidth(f *os.File) int {
	if f != nil {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// rowsTogether is the number of rows that share their columns' widths. A long table is
// written in such parts, so that its start need not wait for its end.
const rowsTogether = 200

// row adds a row. v is its JSON, cells its columns; an empty cell becomes "-".
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

// end writes the rows that are not yet written.
func (t *table) end() error {
	if len(t.rows) == 0 {
		return nil
	}
	rows := t.rows
	if t.rows = nil; !t.shown {
		t.shown = true
		rows = append([][]string{upperCase(t.header)}, rows...)
	}
	widths := columnWidths(rows)
	if t.cut > 0 {
		narrowColumns(widths, t.cut, t.width)
	}
	var b strings.Builder
	for _, cells := range rows {
		line := ""
		for i, c := range cells {
			c = cutText(c, widths[i])
			line += c + strings.Repeat(" ", widths[i]-textWidth(c)+columnGap)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return t.out.text(b.String())
}

// upperCase returns the words in upper case.
func upperCase(words []string) []string {
	words = slices.Clone(words)
	for i, w := range words {
		words[i] = strings.ToUpper(w)
	}
	return words
}

// columnGap is the number of spaces between two columns.
const columnGap = 2

// columnWidths returns the width of the widest cell in each column.
func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, cells := range rows {
		for i, c := range cells {
			widths[i] = max(widths[i], textWidth(c))
		}
	}
	return widths
}

// leastWidth is the least width of a cut column, even on a narrow terminal.
const leastWidth = 8

// narrowColumns reduces the widths of the last cut columns so that a row fits into width. The
// columns share the remaining width equally. A column that needs less leaves the rest to
// the others.
func narrowColumns(widths []int, cut, width int) {
	left := width - columnGap*(len(widths)-1)
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

// textWidth returns the number of terminal columns that a text takes.
func textWidth(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth returns 0 for combining characters, 2 for wide ones such as Han, otherwise 1.
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && (unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) || r >= 0xff01 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1faff):
		return 2
	}
	return 1
}

// cutText returns the text, cut to width columns. A cut text ends in an ellipsis.
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
