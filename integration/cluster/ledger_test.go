//go:build cluster

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
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

// ledger is what all clients of a service have done so far.
type ledger struct {
	read    map[string]int64 // of each journal, in bytes
	puts    map[string]*putRecord
	entries map[entryKey]*entryRecord
	acks    map[string][]time.Time // when a client heard that a write of its was applied
	notes   []string
}

type putRecord struct {
	queue   int
	name    string
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

func newLedger() *ledger {
	return &ledger{read: map[string]int64{}, puts: map[string]*putRecord{}, entries: map[entryKey]*entryRecord{}, acks: map[string][]time.Time{}}
}

// take reads what has been added to the journals in dir: <client>.<process>.
func (l *ledger) take(dir string) error {
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

func (l *ledger) takeFile(file string) error {
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

func (l *ledger) add(client string, r record) {
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

// balance is what a ledger comes to when all queues are empty and nobody has an entry in hand.
type balance struct {
	puts, finishes int // acknowledged
	unknownPuts    int
	late           int      // finishes by those who had lost the entry, which did nothing
	lost           []string // put, acknowledged, never handed out, and gone
	duplicated     []string // finished twice, or put once and there twice
	wrong          []string // removed by somebody who did not hold it, or by nobody
}

func (b balance) even() bool { return len(b.lost)+len(b.duplicated)+len(b.wrong) == 0 }

// balance checks that every entry whose put was acknowledged was removed by exactly one finish whose outcome is ok or
// unknown, at most one of them ok, and that by its last holder; and that nothing appeared which was not put.
func (l *ledger) balance() balance {
	var b balance
	names := make(map[string][]string) // of the entries that were handed out, by value
	for key, e := range l.entries {
		var oks, maybes int
		for f, o := range e.finishes {
			switch {
			case o == unknown:
				maybes++
			case o == lost:
				b.late++
			case o == ok:
				oks++
				if last := slices.Max(append(e.claims, 0)); f.token < last {
					b.wrong = append(b.wrong, fmt.Sprintf("%s (%s) by %s with token %d, while %d held it", key.name, e.value, f.client, f.token, last))
				}
			}
		}
		b.finishes += oks
		if oks > 1 {
			b.duplicated = append(b.duplicated, fmt.Sprintf("%s (%s) was finished %d times: %v", key.name, e.value, oks, e.finishes))
		}
		if oks+maybes == 0 {
			b.wrong = append(b.wrong, fmt.Sprintf("%s (%s) is gone, and no finish removed it: %v", key.name, e.value, e.finishes))
		}
		if p := l.puts[e.value]; p == nil || p.queue != key.queue {
			b.wrong = append(b.wrong, fmt.Sprintf("%s (%s) was handed out, and nobody put it there", key.name, e.value))
		}
		names[e.value] = append(names[e.value], key.name)
	}
	for value, p := range l.puts {
		there := names[value]
		if len(there) > 1 {
			b.duplicated = append(b.duplicated, fmt.Sprintf("%s was put once and is there as %v", value, there))
		}
		switch p.outcome {
		case ok:
			b.puts++
			if len(there) == 0 {
				b.lost = append(b.lost, fmt.Sprintf("%s (%s)", p.name, value))
			} else if !slices.Contains(there, p.name) {
				b.wrong = append(b.wrong, fmt.Sprintf("%s was put as %s and handed out as %v", value, p.name, there))
			}
		case unknown:
			b.unknownPuts++
		case refused:
			if len(there) > 0 {
				b.wrong = append(b.wrong, fmt.Sprintf("%s was refused, and handed out as %v", value, there))
			}
		}
	}
	return b
}

// gap is the longest time between from and to in which a client heard of no write that was applied.
func (l *ledger) gap(client string, from, to time.Time) time.Duration {
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

// A checker that never fails proves nothing.
func TestLedgerNoticesEachBreach(t *testing.T) {
	good := []record{
		{Act: putting, Value: "a"},
		{Act: put, Value: "a", Name: "1", Outcome: ok},
		{Act: took, Name: "1", Value: "a", Token: 5},
		{Act: finishing, Name: "1", Token: 5},
		{Act: finished, Name: "1", Token: 5, Outcome: ok},
	}
	for _, c := range []struct {
		name                    string
		records                 []record
		lost, duplicated, wrong int
	}{
		{"nothing wrong", nil, 0, 0, 0},
		{"lost", []record{{Act: putting, Value: "b"}, {Act: put, Value: "b", Name: "2", Outcome: ok}}, 1, 0, 0},
		{"an unknown put is not there", []record{{Act: putting, Value: "b"}}, 0, 0, 0},
		{"put twice", []record{{Act: took, Name: "2", Value: "a", Token: 7}, {Act: finished, Name: "2", Token: 7, Outcome: ok}}, 0, 1, 0},
		{"finished twice", []record{{Act: took, Name: "1", Value: "a", Token: 4}, {Act: finished, Name: "1", Token: 4, Outcome: ok}}, 0, 1, 1},
		{"finished by an old holder", []record{{Act: took, Name: "1", Value: "a", Token: 6}}, 0, 0, 1},
		{"a second finish without an answer", []record{{Act: took, Name: "1", Value: "a", Token: 4}, {Act: finishing, Name: "1", Token: 4}}, 0, 0, 0},
		{"removed by a finish that said it removed nothing", []record{
			{Act: putting, Value: "b"},
			{Act: put, Value: "b", Name: "2", Outcome: ok},
			{Act: took, Name: "2", Value: "b", Token: 8},
			{Act: finished, Name: "2", Token: 8, Outcome: lost},
		}, 0, 0, 1},
		{"a refused put is there", []record{
			{Act: putting, Value: "b"},
			{Act: put, Value: "b", Outcome: refused},
			{Act: took, Name: "2", Value: "b", Token: 8},
			{Act: finished, Name: "2", Token: 8, Outcome: ok},
		}, 0, 0, 1},
		{"handed out, never put", []record{{Act: took, Name: "2", Value: "c", Token: 8}, {Act: finished, Name: "2", Token: 8, Outcome: ok}}, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger()
			for _, r := range slices.Concat(good, c.records) {
				l.add("client", r)
			}
			if b := l.balance(); len(b.lost) != c.lost || len(b.duplicated) != c.duplicated || len(b.wrong) != c.wrong {
				t.Errorf("lost %v, duplicated %v, wrong %v; want %d, %d, %d of them", b.lost, b.duplicated, b.wrong, c.lost, c.duplicated, c.wrong)
			}
		})
	}
}

func TestLedgerGapReachesFromTheFaultToTheEnd(t *testing.T) {
	l, start := newLedger(), time.Unix(100, 0)
	for _, s := range []int{-1, 3, 4} {
		l.add("a", record{Act: finished, Name: "1", Outcome: ok, Time: start.Add(time.Duration(s) * time.Second).UnixNano()})
	}
	if g := l.gap("a", start, start.Add(6*time.Second)); g != 3*time.Second {
		t.Errorf("gap %v, want 3 s", g)
	}
	if g := l.gap("a", start, start.Add(10*time.Second)); g != 6*time.Second {
		t.Errorf("gap %v, want 6 s", g)
	}
	if g := l.gap("nobody", start, start.Add(10*time.Second)); g != 10*time.Second {
		t.Errorf("gap %v, want 10 s", g)
	}
}
