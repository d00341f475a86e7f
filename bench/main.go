// Command bench measures zkq beside the queues that people use instead, on this machine, and prints each figure beside
// the one to reach.
//
// It starts every server itself, on loopback ports of the kernel's choice and in directories of its own, and ends them.
// Absolute rates mean little: what is compared runs in turns (A B, B A, …), and the median of the ratios is the figure,
// with the lowest and highest beside it. Counts come from the servers and carry no noise.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/zkq/zkq/internal/plot"
)

// bench is one run.
type bench struct {
	quick   bool
	counts  bool          // only what carries no noise
	rounds  int           // of each comparison
	cell    time.Duration // at most, for one measurement
	warming time.Duration

	dir     string
	servers []*process
	report  report
	costs   []plot.Series // for the plot
	svg     io.Writer     // may be nil
	only    *regexp.Regexp
}

// group is rows that are measured together, with servers of their own.
type group struct {
	says    string
	rows    []*row
	measure func(context.Context, *bench, map[string]*row) error
}

func main() {
	slowRole()
	role()
	os.Exit(run())
}

func run() int {
	only := flag.String("run", "", "only the groups with a row whose name matches")
	kind := flag.String("kind", os.Getenv("BENCH"), "quick, counts (only what carries no noise), or nothing: longer and steadier; $BENCH")
	jsonFile := flag.String("json", "", "a file for the rows, one object per line")
	table := flag.String("markdown", "", "a file for the rows as a table, with date, commit and machine")
	svg := flag.String("svg", "", "a file for a plot of the cost of an entry against the backlog")
	flag.Parse()
	b := &bench{rounds: 3, cell: 3 * time.Second, warming: 4 * time.Second, report: report{text: os.Stdout}}
	var err error
	if b.only, err = regexp.Compile(*only); err != nil || flag.NArg() > 0 {
		flag.Usage()
		return 2
	}
	switch *kind {
	case "":
	case "counts":
		b.counts = true
		fallthrough
	case "quick":
		b.quick, b.cell, b.warming = true, 800*time.Millisecond, 2*time.Second
	default:
		fmt.Fprintf(os.Stderr, "bench: BENCH=%s: quick, counts, or nothing\n", *kind)
		return 2
	}
	for _, f := range []struct {
		name string
		to   *io.Writer
	}{{*jsonFile, &b.report.json}, {*table, &b.report.table}, {*svg, &b.svg}} {
		if f.name == "" {
			continue
		}
		file, err := os.Create(f.name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		defer file.Close()
		*f.to = file
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	reached, err := b.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if !reached || err != nil {
		return 1
	}
	return 0
}

func (b *bench) run(ctx context.Context) (reached bool, err error) {
	if b.dir, err = os.MkdirTemp("", "zkq-bench-"); err != nil {
		return false, err
	}
	defer os.RemoveAll(b.dir)
	defer b.stop()
	if err := os.Chmod(b.dir, 0o755); err != nil { // servers that must not run as root have directories in it
		return false, err
	}
	begun := time.Now()
	run := description(begun)
	b.report.begin(run)
	for _, g := range b.groups() {
		rows, wanted := map[string]*row{}, false
		for _, r := range g.rows {
			rows[r.Name] = r
			wanted = wanted || b.only.MatchString(r.Name)
		}
		if !wanted {
			continue
		}
		b.progress("%s", g.says)
		at := time.Now()
		err := g.measure(ctx, b, rows)
		b.stop()
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		for _, r := range g.rows {
			if err != nil && !r.done() {
				r.Why = err.Error()
			}
			b.report.add(r)
		}
		b.progress("%s: %v", g.says, time.Since(at).Round(time.Second))
	}
	b.progress("all: %v", time.Since(begun).Round(time.Second))
	if b.svg != nil {
		_, err = io.WriteString(b.svg, plot.Costs("Time for one entry, taken and finished, against the backlog", "16 workers; "+run, b.costs...))
	}
	return b.report.end(), err
}

// commit is the commit that was built.
var commit = "unknown"

// description says which run this is: when, of what, on what.
func description(at time.Time) string {
	processor := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			processor = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, commit %s, %d × %s", at.UTC().Format(time.DateOnly), commit, runtime.NumCPU(), processor)
}

// progress says on stderr what is going on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
