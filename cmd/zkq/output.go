package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/zkq/zkq"
)

// output is standard output, which carries values and records and nothing else.
// Each of them is one write, so that a broken pipe tells which were shown.
type output struct {
	*stream
	json     bool
	terminal bool

	before func()          // clears what progress drew; nil: nothing is drawn
	after  func(last byte) // is told the last byte of a write; may be nil
}

func newOutput(w io.Writer) *output {
	return &output{stream: newStream(w), terminal: isTerminal(w)}
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (o *output) write(b []byte) error {
	return o.copy(bytes.NewReader(b))
}

// copy writes all of r as one piece.
func (o *output) copy(r io.Reader) error {
	end := &lastByte{last: '\n'}
	write := func(w io.Writer) error {
		end.w = w
		_, err := io.Copy(end, r)
		return err
	}
	if o.after == nil {
		return o.do(o.before, write, nil)
	}
	return o.do(o.before, write, func(err error) {
		last := byte('\n')
		if !errors.Is(err, errStuck) { // write would still use end
			last = end.last
		}
		o.after(last)
	})
}

// lastByte remembers how what was written ends.
type lastByte struct {
	w    io.Writer
	last byte
}

func (l *lastByte) Write(b []byte) (int, error) {
	if len(b) > 0 {
		l.last = b[len(b)-1]
	}
	return l.w.Write(b)
}

type writerFunc func([]byte) error

func (f writerFunc) Write(b []byte) (int, error) {
	if err := f(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// text writes text of our own.
func (o *output) text(s string) error { return o.write([]byte(s)) }

// record writes a JSON object, or the words of a text line.
func (o *output) record(v any, words ...string) error {
	if !o.json {
		return o.text(strings.Join(words, "\t") + "\n")
	}
	line, err := marshal(v)
	if err != nil {
		return err
	}
	return o.write(line)
}

// value writes an entry's value: as a record, as it is with raw, or with a
// newline after it. On a terminal control characters are escaped, but for line
// feeds and tabs.
func (o *output) value(e entryRecord, value []byte, raw bool) error {
	if o.json {
		return o.record(e.with(value))
	}
	if o.terminal {
		value = []byte(escape(string(value), "\n\t"))
	}
	if raw {
		return o.write(value)
	}
	return o.write(append(value[:len(value):len(value)], '\n'))
}

// entryRecord is an entry in JSON.
type entryRecord struct {
	Queue      string     `json:"queue"`
	Name       string     `json:"name"`
	Priority   int        `json:"priority"`
	State      zkq.State  `json:"state"`
	Holder     string     `json:"holder"`
	Deliveries int        `json:"deliveries"`
	Failures   int        `json:"failures"`
	Reason     string     `json:"reason,omitempty"` // of the last failure, or of the death
	Token      int64      `json:"token"`
	Size       int        `json:"size"`
	Created    *time.Time `json:"created,omitempty"`
	Due        *time.Time `json:"due,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
	Host       string     `json:"host,omitempty"` // where the holder runs, if it said so
	PID        int        `json:"pid,omitempty"`
	Since      *time.Time `json:"since,omitempty"` // held or dead
	Unreadable bool       `json:"unreadable,omitempty"`
	Value      *string    `json:"value,omitempty"`
	Base64     *[]byte    `json:"value_base64,omitempty"`
}

func newEntryRecord(queue string, e zkq.Entry) entryRecord {
	return entryRecord{
		Queue: queue, Name: e.Name, Priority: e.Priority, State: e.State, Holder: e.Holder,
		Deliveries: e.Deliveries, Failures: e.Failures, Reason: e.Reason, Token: e.Token, Size: e.Size,
		Created: known(e.Created), Due: known(e.Due), Expires: known(e.Expires), Since: known(e.Since),
		Unreadable: e.Unreadable,
	}
}

func newHeldRecord(queue, holder string, h *zkq.Held) entryRecord {
	return entryRecord{
		Queue: queue, Name: h.Name, Priority: h.Priority, State: zkq.StateHeld, Holder: holder,
		Deliveries: h.Deliveries, Failures: h.Failures, Token: h.Token, Size: len(h.Value),
		Created: known(h.Created),
	}
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// with adds the value: as text if it is UTF-8, in base 64 otherwise.
func (e entryRecord) with(value []byte) entryRecord {
	if utf8.Valid(value) {
		s := string(value)
		e.Value = &s
	} else {
		e.Base64 = &value
	}
	return e
}

// age is how long ago t was, as people and the duration flags write it.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(time.Since(t), 0)
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
