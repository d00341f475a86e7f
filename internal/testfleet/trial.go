package testfleet

import (
	"cmp"
	"fmt"
	"os"
	"testing"
	"text/tabwriter"
	"time"
)

// Fault is something that happens while queues are in use, and is over when Do returns.
type Fault struct {
	Name  string
	Do    func(*Trial)
	Bound time.Duration // until every client writes again; 0: the fleet's
}

// Trial is one fault that happens to one fleet.
type Trial struct {
	testing.TB
	*Fleet
	Calm time.Duration // of use after the fault

	from map[*Process]time.Time // since when a client is asked to write: the fault, unless it could not
}

// Excuse asks nothing of the clients before now: until then no majority, or no way to it, was there.
func (t *Trial) Excuse(clients ...*Process) {
	for _, p := range clients {
		t.from[p] = time.Now()
	}
}

// Victim is the client to whom things happen.
func (t *Trial) Victim() *Process { return t.Clients[1] }

// Beyond is longer than a session lives without its client.
func (t *Trial) Beyond() time.Duration { return t.Session + 3*time.Second }

// For lets what a link does last for a while.
func (t *Trial) For(d time.Duration, p *Process, what func()) {
	what()
	time.Sleep(d)
	p.Link.Heal()
	t.Excuse(p)
}

// Sum is what a number of faults came to.
type Sum struct {
	Faults, Histories       int // a history is what happened to one queue in one fault
	Lost, Duplicated, Wrong int // entries
	Unknown, Late           int // puts without an outcome; finishes that came too late and did nothing
}

func (s Sum) String() string {
	return fmt.Sprintf("%d faults, %d histories, %d lost, %d duplicated, %d wrongly removed", s.Faults, s.Histories, s.Lost, s.Duplicated, s.Wrong)
}

// Add adds another sum.
func (s *Sum) Add(o Sum) {
	s.Faults += o.Faults
	s.Histories += o.Histories
	s.Lost += o.Lost
	s.Duplicated += o.Duplicated
	s.Wrong += o.Wrong
	s.Unknown += o.Unknown
	s.Late += o.Late
}

// Endure lets one fault after the other happen, each in a test of its name, and checks after each what became of every entry
// so far. Ready waits until the next may come. A table is printed.
func (f *Fleet) Endure(t *testing.T, faults []Fault, ready func(testing.TB)) Sum {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "fault\tservice\tworst gap\tdrained in\tputs\tlost\tduplicated\twrongly removed\torphan locks\tunknown puts\tlate finishes refused\t")
	defer table.Flush()
	var sum Sum
	var before Balance
	for _, fault := range faults {
		faultsBefore := sum.Faults
		held := t.Run(fault.Name, func(t *testing.T) {
			ready(t)
			b := f.endure(t, fault, before, table)
			sum.Faults++
			for q, n := range b.Queues {
				if n > before.Queues[q] {
					sum.Histories++
				}
			}
			before = b
			if f.Judge != nil {
				for _, wrong := range f.Judge(t) {
					t.Error(wrong)
					sum.Wrong++
				}
			}
		})
		if !held && sum.Faults == faultsBefore || sum.Wrong > 0 || !before.Even() {
			break // what is broken would be found broken again
		}
	}
	sum.Lost, sum.Duplicated = len(before.Lost), len(before.Duplicated)
	sum.Wrong += len(before.Wrong)
	sum.Unknown, sum.Late = before.UnknownPuts, before.Late
	if f.slow > 1 {
		t.Errorf("after %d of %d faults a client did not write in time", f.slow, len(faults))
	}
	return sum
}

// endure is one fault: a second of use, the fault, two more seconds or what it asks for, then the queues are drained and the
// books compared.
func (f *Fleet) endure(t *testing.T, fault Fault, before Balance, table *tabwriter.Writer) Balance {
	f.tell(t, "go")
	time.Sleep(time.Second)
	start := time.Now()
	happens := &Trial{TB: t, Fleet: f, from: make(map[*Process]time.Time), Calm: 2 * time.Second}
	for _, p := range f.Clients {
		happens.from[p] = start
	}
	fault.Do(happens)
	over := time.Now()
	var to time.Time
	// All must have written again, and go on for a while.
	for limit := over.Add(cmp.Or(fault.Bound, f.Bound) + 5*time.Second); ; time.Sleep(50 * time.Millisecond) {
		to = time.Now()
		if err := f.Ledger.Take(f.dir); err != nil {
			t.Fatal(err)
		}
		if to.After(limit) || to.After(over.Add(happens.Calm)) && f.wrote(over) {
			break
		}
	}
	var worst time.Duration
	for _, p := range f.Clients {
		worst = max(worst, f.Ledger.Gap(p.Name, happens.from[p], to))
	}
	bound := cmp.Or(fault.Bound, f.Bound)
	switch {
	case worst > 2*bound:
		t.Errorf("a client did not write for %v, the bound is %v", worst, bound)
	case worst > bound:
		f.slow++ // once in all is the machine's doing
		t.Logf("a client did not write for %v, the bound is %v", worst, bound)
	}
	drained, locks := f.drain(t)
	if err := f.Ledger.Take(f.dir); err != nil {
		t.Fatal(err)
	}
	b := f.Ledger.Balance()
	fmt.Fprintf(table, "%s\t%s\t%.1f s\t%.1f s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", fault.Name, f.Service, worst.Seconds(), drained.Seconds(),
		b.Puts-before.Puts, len(b.Lost), len(b.Duplicated), len(b.Wrong), len(locks), b.UnknownPuts-before.UnknownPuts, b.Late-before.Late)
	t.Logf("worst gap %v, drained in %v, %d puts, %d finishes, %d unknown puts", worst, drained, b.Puts-before.Puts,
		b.Finishes-before.Finishes, b.UnknownPuts-before.UnknownPuts)
	for what, list := range map[string][]string{
		"lost": b.Lost, "duplicated": b.Duplicated, "wrongly removed": b.Wrong, "lock without an entry": locks,
	} {
		for _, one := range list {
			t.Errorf("%s: %s", what, one)
		}
	}
	if b.Finishes == before.Finishes {
		t.Error("nothing was finished meanwhile")
	}
	for _, n := range f.Ledger.notes {
		t.Log(n)
	}
	f.Ledger.notes = nil
	return b
}

// wrote says whether every client heard, since then, of a write that was applied.
func (f *Fleet) wrote(since time.Time) bool {
	for _, p := range f.Clients {
		acks := f.Ledger.acks[p.Name]
		if len(acks) == 0 || acks[len(acks)-1].Before(since) {
			return false
		}
	}
	return true
}
