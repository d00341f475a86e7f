package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/internal/plot"
)

// contender is one of those that are measured in turns.
type contender struct {
	name string
	run  func(context.Context) (load.Done, error)

	series  string // the line of the plot that it is a point of, or ""
	backlog int

	rates []float64
	err   error // it is out: what went wrong
}

// compare has everyone run once in each round, in turns forward and backward. One that fails is out.
func (b *bench) compare(ctx context.Context, all ...*contender) {
	for i := range b.rounds {
		order := slices.Clone(all)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			if c.err != nil || ctx.Err() != nil {
				continue
			}
			d, err := c.run(ctx)
			if err != nil {
				c.err = fmt.Errorf("%s: %w", c.name, err)
				b.progress("  %v", c.err)
				continue
			}
			b.progress("  %-34s %8.0f/s  (%d in %v)", c.name, d.Rate(), d.N, d.Took.Round(1e6))
			c.rates = append(c.rates, d.Rate())
		}
	}
	for _, c := range all {
		b.point(c)
	}
}

// point adds the contender to the plot, if it is a part of it.
func (b *bench) point(c *contender) {
	if c.series == "" || c.rate() == 0 {
		return
	}
	p := plot.Point{Backlog: float64(c.backlog), Cost: 1000 / c.rate()}
	i := slices.IndexFunc(b.costs, func(s plot.Series) bool { return s.Name == c.series })
	if i < 0 {
		i = len(b.costs)
		b.costs = append(b.costs, plot.Series{Name: c.series})
	}
	b.costs[i].Points = append(b.costs[i].Points, p)
}

// rate is the median of the contender's.
func (c *contender) rate() float64 {
	if len(c.rates) == 0 {
		return 0
	}
	return median(slices.Sorted(slices.Values(c.rates)))
}

// over sets a row to how many times as fast as the other the first is, round by round.
func (r *row) over(ours, theirs *contender) {
	for _, c := range []*contender{ours, theirs} {
		if c.err != nil {
			r.Why = c.err.Error()
			return
		}
	}
	var ratios []float64
	for i := range ours.rates {
		if i < len(theirs.rates) && theirs.rates[i] > 0 {
			ratios = append(ratios, ours.rates[i]/theirs.rates[i])
		}
	}
	r.set(ratios, "%s %.0f/s, %s %.0f/s", ours.name, ours.rate(), theirs.name, theirs.rate())
	if r.Why == "" && r.Value < 1 {
		r.Note += "; " + theirs.name + " is the faster"
	}
}

// overBest compares with the faster of several.
func (r *row) overBest(ours *contender, theirs ...*contender) {
	for _, c := range theirs {
		if c.err != nil {
			r.Why = c.err.Error()
			return
		}
	}
	r.over(ours, slices.MaxFunc(theirs, func(a, b *contender) int {
		if a.rate() < b.rate() {
			return -1
		}
		return 1
	}))
}
