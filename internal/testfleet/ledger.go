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

// record is a line of a client's journal.
type record struct {
	Time    int64   `json:"t"` // Unix, in nanoseconds
	Act     act     `json:"a"`
	Queue   int     `json:"q"`
	Name    string  `json:"n,omitempty"` // of the entry
	Value   string  `json:"v,omitempty"`
	Token   int64   `json:"k,omitempty"` // of the claim
	Outcome outcome `json:"o,omitempty"`
	Error   string  `json:"e,omitempty"`
}

// act is what a client is about to do, or has done.
type act string

const (
	putting   act = "putting"
	put       act = "put"
	took      act = "took"
	finishing act = "finishing"
	finished  act = "finished"
	releasing act = "releasing"
	released  act = "released"
	note      act = "note"
)

// outcome is how an act ended.
type outcome string

const (
	ok      outcome = "ok"
	unknown outcome = "unknown" // what was begun and never ended counts as this
	lost    outcome = "lost"    // the lock was somebody else's, nothing was done
	refused outcome = "refused" // another error: nothing was done
)

// Ledger is what all clients of a service have done so far.
type Ledger struct {
	read    map[string]int64 // of each journal, in bytes
	puts    map[string]*putRecord
	entries map[entryKey]*entryRecord
	acks    map[string][]time.Time // when a client heard that a write of its was applied
	notes   []string
}

type putRecord struct {
	queue   int
	name    string // "" also where the put was answered late, and the entry gone by then
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

// finishKey tells apart the finishes of one entry: a claim's token is its own.
type finishKey struct {
	client string
	token  int64
}

func NewLedger() *Ledger {
	return &Ledger{read: map[string]int64{}, puts: map[string]*putRecord{}, entries: map[entryKey]*entryRecord{}, acks: map[string][]time.Time{}}
}

// Take reads what has been added to the journals in dir: <client>.<process>.
func (l *Ledger) Take(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := l.takeFile(file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func (l *Ledger) takeFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(l.read[file], io.SeekStart); err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	l.read[file] += int64(len(b))
	client := filepath.Base(file[:len(file)-len(".journal")])
	for line := range bytes.Lines(b) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		l.add(client, r)
	}
	return nil
}

func (l *Ledger) add(client string, r record) {
	entry := func() *entryRecord {
		key := entryKey{r.Queue, r.Name}
		if l.entries[key] == nil {
			l.entries[key] = &entryRecord{finishes: make(map[finishKey]outcome)}
		}
		return l.entries[key]
	}
	switch r.Act {
	case putting:
		l.puts[r.Value] = &putRecord{queue: r.Queue, outcome: unknown}
	case put:
		p := l.puts[r.Value]
		p.name, p.outcome = r.Name, r.Outcome
	case took:
		e := entry()
		e.value = r.Value
		e.claims = append(e.claims, r.Token)
	case finishing:
		entry().finishes[finishKey{client, r.Token}] = unknown
	case finished:
		entry().finishes[finishKey{client, r.Token}] = r.Outcome
	case note:
		l.notes = append(l.notes, client+": "+r.Error)
	}
	if r.Outcome == ok {
		l.acks[client] = append(l.acks[client], time.Unix(0, r.Time))
	}
	if r.Outcome == refused {
		l.notes = append(l.notes, fmt.Sprintf("%s: %s %s: %s", client, r.Act, r.Name, r.Error))
	}
}

// Balance is what a ledger comes to when all queues are empty and nobody has an entry in hand.
type Balance struct {
	Puts, Finishes int         // acknowledged
	Queues         map[int]int // finishes, by queue
	UnknownPuts    int
	Late           int      // finishes by those who had lost the entry, which did nothing
	Lost           []string // put, acknowledged, never handed out, and gone
	Duplicated     []string // finished twice, or put once and there twice
	Wrong          []string // removed by somebody who did not hold it, or by nobody
}

func (b Balance) Even() bool { return len(b.Lost)+len(b.Duplicated)+len(b.Wrong) == 0 }

// Balance checks that every entry whose put was acknowledged was removed by exactly one finish whose outcome is ok or
// unknown, at most one of them ok, and that by its last holder; and that nothing appeared which was not put.
func (l *Ledger) Balance() Balance {
	b := Balance{Queues: make(map[int]int)}
	names := make(map[string][]string) // of the entries that were handed out, by value
	for key, e := range l.entries {
		var oks, maybes int
		for f, o := range e.finishes {
			switch {
			case o == unknown:
				maybes++
			case o == lost:
				b.Late++
			case o == ok:
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
		case ok:
			b.Puts++
			if len(there) == 0 {
				b.Lost = append(b.Lost, fmt.Sprintf("%s (%s)", p.name, value))
			} else if p.name != "" && !slices.Contains(there, p.name) {
				b.Wrong = append(b.Wrong, fmt.Sprintf("%s was put as %s and handed out as %v", value, p.name, there))
			}
		case unknown:
			b.UnknownPuts++
		case refused:
			if len(there) > 0 {
				b.Wrong = append(b.Wrong, fmt.Sprintf("%s was refused, and handed out as %v", value, there))
			}
		}
	}
	return b
}

// Gap is the longest time between from and to in which a client heard of no write that was applied.
func (l *Ledger) Gap(client string, from, to time.Time) time.Duration {
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
