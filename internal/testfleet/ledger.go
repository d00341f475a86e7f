package testfleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// journalRecord is a line of a client's journal.
type journalRecord struct {
	Time    int64   `json:"t"` // Unix, in nanoseconds
	Act     act     `json:"a"`
	Queue   int     `json:"q"`
	Name    string  `json:"n,omitempty"` // of the entry
	Value   string  `json:"v,omitempty"`
	Token   int64   `json:"k,omitempty"` // of the claim
	Outcome outcome `json:"o,omitempty"`
	Error   string  `json:"e,omitempty"`
}

// act is what a client is about to do or has done.
type act string

const (
	actPutting   act = "putting"
	actPut       act = "put"
	actTook      act = "took"
	actFinishing act = "finishing"
	actFinished  act = "finished"
	actReleasing act = "releasing"
	actReleased  act = "released"
	actNote      act = "note"
)

// outcome is how an act ended.
type outcome string

const (
	outcomeOK      outcome = "ok"
	outcomeUnknown outcome = "unknown" // also for an act that began and has no end in the journal
	outcomeLost    outcome = "lost"    // another client held the lock; nothing was done
	outcomeRefused outcome = "refused" // another error: nothing was done
)

// Ledger is what all clients of a fleet have done so far, by their journals.
type Ledger struct {
	offsets map[string]int64 // read so far of each journal, in bytes
	puts    map[string]*putRecord
	entries map[entryKey]*entryRecord
	acks    map[string][]time.Time // when a client got the answer that a write was applied
	notes   []string
}

type putRecord struct {
	queue   int
	name    string // "" also if the put was answered late and the entry was gone by then
	outcome outcome
}

type entryKey struct {
	queue int
	name  string
}

type entryRecord struct {
	value    string
	claims   []int64
	finishes map[finishKey]outcome
}

// finishKey identifies a finish of an entry. Each claim has a token of its own.
type finishKey struct {
	client string
	token  int64
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{offsets: map[string]int64{}, puts: map[string]*putRecord{}, entries: map[entryKey]*entryRecord{}, acks: map[string][]time.Time{}}
}

// ReadJournals reads the lines that were added to the journals in dir since the last call.
func (l *Ledger) ReadJournals(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := l.readJournal(file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func (l *Ledger) readJournal(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(l.offsets[file], io.SeekStart); err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	l.offsets[file] += int64(len(b))
	client := filepath.Base(file[:len(file)-len(".journal")])
	for line := range bytes.Lines(b) {
		var r journalRecord
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		l.add(client, r)
	}
	return nil
}

func (l *Ledger) add(client string, r journalRecord) {
	entry := func() *entryRecord {
		key := entryKey{r.Queue, r.Name}
		if l.entries[key] == nil {
			l.entries[key] = &entryRecord{finishes: make(map[finishKey]outcome)}
		}
		return l.entries[key]
	}
	switch r.Act {
	case actPutting:
		l.puts[r.Value] = &putRecord{queue: r.Queue, outcome: outcomeUnknown}
	case actPut:
		p := l.puts[r.Value]
		p.name, p.outcome = r.Name, r.Outcome
	case actTook:
		e := entry()
		e.value = r.Value
		e.claims = append(e.claims, r.Token)
	case actFinishing:
		entry().finishes[finishKey{client, r.Token}] = outcomeUnknown
	case actFinished:
		entry().finishes[finishKey{client, r.Token}] = r.Outcome
	case actNote:
		l.notes = append(l.notes, client+": "+r.Error)
	}
	if r.Outcome == outcomeOK {
		l.acks[client] = append(l.acks[client], time.Unix(0, r.Time))
	}
	if r.Outcome == outcomeRefused {
		l.notes = append(l.notes, fmt.Sprintf("%s: %s %s: %s", client, r.Act, r.Name, r.Error))
	}
}

// Balance is the sums of a ledger when all queues are empty and no entry is held.
type Balance struct {
	Puts, Finishes int         // that were answered as applied
	Queues         map[int]int // finishes, by queue
	UnknownPuts    int
	Late           int      // finishes by clients that had lost the entry; they did nothing
	Lost           []string // put with an answer, never handed out, and gone
	Duplicated     []string // finished twice, or put once and handed out under two names
	Wrong          []string // removed by a client that did not hold it, or by no client
}

// IsClean reports whether no entry was lost, duplicated or wrongly removed.
func (b Balance) IsClean() bool { return len(b.Lost)+len(b.Duplicated)+len(b.Wrong) == 0 }

// Balance checks each entry. If its put was answered, a finish with the outcome ok or unknown
// must have removed it. At most one finish may be ok, and that must be the last holder's. No
// entry may have been handed out that was not put.
func (l *Ledger) Balance() Balance {
	b := Balance{Queues: make(map[int]int)}
	names := make(map[string][]string) // of the entries that were handed out, by value
	for key, e := range l.entries {
		var oks, maybes int
		for f, o := range e.finishes {
			switch {
			case o == outcomeUnknown:
				maybes++
			case o == outcomeLost:
				b.Late++
			case o == outcomeOK:
				oks++
				if last := slices.Max(append(e.claims, 0)); f.token < last {
					b.Wrong = append(b.Wrong, fmt.Sprintf("%s (%s) by %s with token %d, while %d held it", key.name, e.value, f.client, f.token, last))
				}
			}
		}
		b.Finishes += oks
		b.Queues[key.queue] += oks
		if oks > 1 {
			b.Duplicated = append(b.Duplicated, fmt.Sprintf("%s (%s) was finished %d times: %v", key.name, e.value, oks, e.finishes))
		}
		if oks+maybes == 0 {
			b.Wrong = append(b.Wrong, fmt.Sprintf("%s (%s) is gone, and no finish removed it: %v", key.name, e.value, e.finishes))
		}
		if p := l.puts[e.value]; p == nil || p.queue != key.queue {
			b.Wrong = append(b.Wrong, fmt.Sprintf("%s (%s) was handed out, and nobody put it there", key.name, e.value))
		}
		names[e.value] = append(names[e.value], key.name)
	}
	for value, p := range l.puts {
		there := names[value]
		if len(there) > 1 {
			b.Duplicated = append(b.Duplicated, fmt.Sprintf("%s was put once and is there as %v", value, there))
		}
		switch p.outcome {
		case outcomeOK:
			b.Puts++
			if len(there) == 0 {
				b.Lost = append(b.Lost, fmt.Sprintf("%s (%s)", p.name, value))
			} else if p.name != "" && !slices.Contains(there, p.name) {
				b.Wrong = append(b.Wrong, fmt.Sprintf("%s was put as %s and handed out as %v", value, p.name, there))
			}
		case outcomeUnknown:
			b.UnknownPuts++
		case outcomeRefused:
			if len(there) > 0 {
				b.Wrong = append(b.Wrong, fmt.Sprintf("%s was refused, and handed out as %v", value, there))
			}
		}
	}
	return b
}

// LongestGap returns the longest time between from and to in which a client got no answer that a
// write was applied.
func (l *Ledger) LongestGap(client string, from, to time.Time) time.Duration {
	last, worst := from, time.Duration(0)
	times := slices.Clone(l.acks[client])
	slices.SortFunc(times, time.Time.Compare)
	for _, at := range append(times, to) {
		if at.Before(from) || at.After(to) {
			continue
		}
		worst = max(worst, at.Sub(last))
		last = at
	}
	return worst
}
