package testfleet

import (
	"cmp"
	"fmt"
	"os"
	"testing"
	"text/tabwriter"
	"time"
)

// Fault is a fault that happens while queues are in use. It has ended when Do returns.
type Fault struct {
	Name  string
	Do    func(*Trial)
	Bound time.Duration // time within which every client writes again; 0: the fleet's
}

// Trial is one fault that happens to one fleet.
type Trial struct {
	testing.TB
	*Fleet
	Calm time.Duration // how long the queues are used after the fault

	gapStart map[*Process]time.Time // since when a client must write: the start of the fault, unless it could not
}

// IgnoreBefore does not count gaps of the clients before now, because until now they could not
// reach a majority of the servers.
func (t *Trial) IgnoreBefore(clients ...*Process) {
	for _, p := range clients {
		t.gapStart[p] = time.Now()
	}
}

// Victim returns the client that faults of one client happen to.
func (t *Trial) Victim() *Process { return t.Clients[1] }

// LongerThanSession returns a time after which the session of a silent client has ended.
func (t *Trial) LongerThanSession() time.Duration { return t.Session + 3*time.Second }

// ApplyFor applies a fault to the link of p for a while, and heals the link.
func (t *Trial) ApplyFor(d time.Duration, p *Process, what func()) {
	what()
	time.Sleep(d)
	p.Link.Heal()
	t.IgnoreBefore(p)
}

// Sum is the result of several faults.
type Sum struct {
	Faults, Histories       int // a history is one queue that was used during one fault
	Lost, Duplicated, Wrong int // entries
	Unknown, Late           int // puts with an unknown outcome; finishes that came too late and did nothing
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

// RunFaults runs one fault after the other, each in a subtest. After each fault it checks what
// happened to every entry so far. ready waits until the next fault may come. It prints a table.
func (f *Fleet) RunFaults(t *testing.T, faults []Fault, ready func(testing.TB)) Sum {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "fault\tservice\tworst gap\tdrained in\tputs\tlost\tduplicated\twrongly removed\torphan locks\tunknown puts\tlate finishes refused\t")
	defer table.Flush()
	var sum Sum
	var before Balance
	for _, fault := range faults {
		faultsBefore := sum.Faults
		held := t.Run(fault.Name, func(t *testing.T) {
			ready(t)
			b := f.runFault(t, fault, before, table)
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
		if !held && sum.Faults == faultsBefore || sum.Wrong > 0 || !before.IsClean() {
			break // later checks would report the same again
		}
	}
	sum.Lost, sum.Duplicated = len(before.Lost), len(before.Duplicated)
	sum.Wrong += len(before.Wrong)
	sum.Unknown, sum.Late = before.UnknownPuts, before.Late
	if f.slowFaults > 1 {
		t.Errorf("after %d of %d faults a client did not write in time", f.slowFaults, len(faults))
	}
	return sum
}

// runFault lets the clients use the queues for a second, causes the fault, and lets them go on for
// two seconds or as long as the fault asks for. Then it drains the queues and checks the ledger.
func (f *Fleet) runFault(t *testing.T, fault Fault, before Balance, table *tabwriter.Writer) Balance {
	f.command(t, "go")
	time.Sleep(time.Second)
	start := time.Now()
	happens := &Trial{TB: t, Fleet: f, gapStart: make(map[*Process]time.Time), Calm: 2 * time.Second}
	for _, p := range f.Clients {
		happens.gapStart[p] = start
	}
	fault.Do(happens)
	over := time.Now()
	var to time.Time
	// Every client must have written again, and goes on for a while.
	for limit := over.Add(cmp.Or(fault.Bound, f.Bound) + 5*time.Second); ; time.Sleep(50 * time.Millisecond) {
		to = time.Now()
		if err := f.Ledger.ReadJournals(f.dir); err != nil {
			t.Fatal(err)
		}
		if to.After(limit) || to.After(over.Add(happens.Calm)) && f.haveAllWritten(over) {
			break
		}
	}
	var worst time.Duration
	for _, p := range f.Clients {
		worst = max(worst, f.Ledger.LongestGap(p.Name, happens.gapStart[p], to))
	}
	bound := cmp.Or(fault.Bound, f.Bound)
	switch {
	case worst > 2*bound:
		t.Errorf("a client did not write for %v, the bound is %v", worst, bound)
	case worst > bound:
		f.slowFaults++ // a busy machine may cause one
		t.Logf("a client did not write for %v, the bound is %v", worst, bound)
	}
	drained, locks := f.drain(t)
	if err := f.Ledger.ReadJournals(f.dir); err != nil {
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

// haveAllWritten reports whether every client got an answer since then that a write was applied.
func (f *Fleet) haveAllWritten(since time.Time) bool {
	for _, p := range f.Clients {
		acks := f.Ledger.acks[p.Name]
		if len(acks) == 0 || acks[len(acks)-1].Before(since) {
			return false
		}
	}
	return true
}
