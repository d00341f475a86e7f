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

// output is standard output, which carries only values and records. Each of them is one
// write, so that a broken pipe tells which of them were written.
type output struct {
	*stream
	json     bool // --output json
	terminal bool // standard output is a terminal

	before func()          // removes the progress line before a write; may be nil
	after  func(last byte) // gets the last byte of each write; may be nil
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

// copy writes all of r. No other write comes in between.
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
		if !errors.Is(err, errStuck) { // a stuck write still uses end
			last = end.last
		}
		o.after(last)
	})
}

// lastByte passes writes on and remembers the last byte written.
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

// writerFunc is a function that is an io.Writer. It writes all bytes or returns an error.
type writerFunc func([]byte) error

func (f writerFunc) Write(b []byte) (int, error) {
	if err := f(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// text writes zkq's own text, which needs no escaping.
func (o *output) text(s string) error { return o.write([]byte(s)) }

// record writes v as a line of JSON, or the words as a line of text separated by tabs.
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

// value writes an entry's value: as a JSON record, unchanged with raw, or followed by a
// newline. On a terminal it escapes control characters, except line feeds and tabs.
func (o *output) value(e entryRecord, value []byte, raw bool) error {
	if o.json {
		return o.record(e.withValue(value))
	}
	if o.terminal {
		value = []byte(escape(string(value), "\n\t"))
	}
	if raw {
		return o.write(value)
	}
	return o.write(append(value[:len(value):len(value)], '\n'))
}

// entryRecord is the JSON of an entry.
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
	Host       string     `json:"host,omitempty"` // where the holder runs, if it is registered
	PID        int        `json:"pid,omitempty"`
	Since      *time.Time `json:"since,omitempty"` // when it was claimed, or died
	Unreadable bool       `json:"unreadable,omitempty"`
	Value      *string    `json:"value,omitempty"`
	Base64     *[]byte    `json:"value_base64,omitempty"`
}

func newEntryRecord(queue string, e zkq.Entry) entryRecord {
	return entryRecord{
		Queue: queue, Name: e.Name, Priority: e.Priority, State: e.State, Holder: e.Holder,
		Deliveries: e.Deliveries, Failures: e.Failures, Reason: e.Reason, Token: e.Token, Size: e.Size,
		Created: timeOrNil(e.Created), Due: timeOrNil(e.Due), Expires: timeOrNil(e.Expires), Since: timeOrNil(e.Since),
		Unreadable: e.Unreadable,
	}
}

// newHeldRecord returns the record of an entry that this process holds.
func newHeldRecord(queue, holder string, h *zkq.Held) entryRecord {
	return entryRecord{
		Queue: queue, Name: h.Name, Priority: h.Priority, State: zkq.StateHeld, Holder: holder,
		Deliveries: h.Deliveries, Failures: h.Failures, Token: h.Token, Size: len(h.Value),
		Created: timeOrNil(h.Created),
	}
}

// timeOrNil returns t in UTC, or nil, which JSON omits, if t is zero.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// withValue returns the record with the value: as text if it is UTF-8, otherwise in base 64.
func (e entryRecord) withValue(value []byte) entryRecord {
	if utf8.Valid(value) {
		s := string(value)
		e.Value = &s
	} else {
		e.Base64 = &value
	}
	return e
}

// age returns the time since t as a Go duration, or "" if t is zero.
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
