package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// row is one line of the result.
type row struct {
	Name   string  `json:"row"`
	Says   string  `json:"says"`             // what is measured
	Bound  float64 `json:"target,omitempty"` // 0: printed without a target
	Most   bool    `json:"at_most,omitempty"`
	Unit   string  `json:"unit"`
	Value  float64 `json:"value"` // the median
	Lowest float64 `json:"lowest"`
	Top    float64 `json:"highest"`
	Note   string  `json:"note,omitempty"`
	Why    string  `json:"missing,omitempty"` // it could not be measured
	Met    bool    `json:"met"`
}

// atLeast and atMost are rows with a target, shown is one without.
func atLeast(name string, bound float64, unit, says string) *row {
	return &row{Name: name, Bound: bound, Unit: unit, Says: says}
}

func atMost(name string, bound float64, unit, says string) *row {
	return &row{Name: name, Bound: bound, Most: true, Unit: unit, Says: says}
}

func shown(name, unit, says string) *row { return &row{Name: name, Unit: unit, Says: says} }

// set gives the row what was measured, once per round.
func (r *row) set(values []float64, note string, args ...any) {
	if len(values) == 0 {
		r.Why = "nothing was measured"
		return
	}
	sorted := slices.Sorted(slices.Values(values))
	r.Value, r.Lowest, r.Top = median(sorted), sorted[0], sorted[len(sorted)-1]
	r.Note = fmt.Sprintf(note, args...)
	r.Met = r.Bound == 0 || r.Most && r.Value <= r.Bound || !r.Most && r.Value >= r.Bound
}

// done says whether the row was measured, or known to be missing.
func (r *row) done() bool { return r.Value != 0 || r.Top != 0 || r.Note != "" || r.Why != "" }

func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// String is the row as it is printed.
func (r *row) String() string {
	word := "ok:    "
	switch {
	case r.Bound == 0 && r.Why == "":
		word = "shown: "
	case !r.Met:
		word = "short: "
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s%-24s", word, r.Name)
	if r.Why != "" {
		fmt.Fprintf(&s, " %s: not measured: %s", r.Says, oneLine(r.Why))
		return s.String()
	}
	fmt.Fprintf(&s, " %s", r.measured())
	if r.Bound != 0 {
		fmt.Fprintf(&s, ", target %s", r.bound())
	}
	fmt.Fprintf(&s, ": %s", r.Says)
	if r.Note != "" {
		fmt.Fprintf(&s, " (%s)", r.Note)
	}
	return s.String()
}

// measured is the median, with the lowest and the highest.
func (r *row) measured() string {
	s := figure(r.Value) + r.Unit
	if r.Lowest != r.Top {
		s += " [" + figure(r.Lowest) + "–" + figure(r.Top) + "]"
	}
	return s
}

// bound is the target.
func (r *row) bound() string {
	if r.Most {
		return "≤ " + figure(r.Bound) + r.Unit
	}
	return "≥ " + figure(r.Bound) + r.Unit
}

// markdown is the row of a table.
func (r *row) markdown() string {
	measured, target := r.measured(), ""
	if r.Bound != 0 {
		if target = r.bound(); !r.Met {
			target += ", missed"
		}
	}
	says := r.Says
	switch {
	case r.Why != "":
		measured, says = "–", says+": not measured: "+oneLine(r.Why)
	case r.Note != "":
		says += " (" + r.Note + ")"
	}
	return "| " + strings.Join([]string{"`" + r.Name + "`", measured, target, strings.ReplaceAll(says, "|", "\\|")}, " | ") + " |"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// figure is a number with as many digits as mean something.
func figure(f float64) string {
	switch {
	case f == float64(int64(f)) && f < 1e6:
		return fmt.Sprintf("%.0f", f)
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// report prints rows as they are known.
type report struct {
	text, json, table io.Writer // but for text they may be nil
	met, target       int
}

// begin writes what the table says of the whole.
func (p *report) begin(run string) {
	if p.table != nil {
		fmt.Fprintf(p.table, "%s.\n\n| row | measured | target | |\n| --- | --- | --- | --- |\n", run)
	}
}

func (p *report) add(r *row) {
	if !r.done() {
		r.Why = "the rows before it were not measured"
	}
	if r.Bound != 0 || r.Why != "" { // what is missing is not passed over
		p.target++
		if r.Met {
			p.met++
		}
	}
	fmt.Fprintln(p.text, r)
	if p.json != nil {
		b, _ := json.Marshal(r) // numbers and strings
		fmt.Fprintf(p.json, "%s\n", b)
	}
	if p.table != nil {
		fmt.Fprintln(p.table, r.markdown())
	}
}

// end prints the sum and says whether all targets were reached.
func (p *report) end() bool {
	fmt.Fprintf(p.text, "%d of %d targets reached\n", p.met, p.target)
	return p.met == p.target
}
