package main

import (
	"os"
	"syscall"
	"time"

	"github.com/zkq/zkq"
)

// attempt is one attempt at an entry, as a line of the job log shows it.
type attempt struct {
	Start      time.Time `json:"start"`
	Seconds    float64   `json:"seconds"`
	Queue      string    `json:"queue"`
	Name       string    `json:"name"`
	Priority   int       `json:"priority"`
	Deliveries int       `json:"deliveries"`
	Failures   int       `json:"failures"`
	Token      int64     `json:"token"`
	Exit       *int      `json:"exit"`   // null: a signal ended CMD, or there was none
	Signal     string    `json:"signal"` // the signal that ended CMD
	Reason     string    `json:"reason"` // how CMD ended, if not well
	Outcome    string    `json:"outcome"`
}

// newAttempt returns an attempt that begins now. Its outcome is not yet known.
func newAttempt(k *call, h *zkq.Held) *attempt {
	return &attempt{
		Start: time.Now().UTC(), Queue: k.queue, Name: h.Name, Priority: h.Priority,
		Deliveries: h.Deliveries, Failures: h.Failures, Token: h.Token,
	}
}

// recordEnd records the exit status of CMD, or the signal that ended it.
func (a *attempt) recordEnd(state *os.ProcessState) {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		a.Signal = ws.Signal().String()
		return
	}
	code := state.ExitCode()
	a.Exit = &code
}

// jobLog is the file of --joblog. A nil jobLog writes nothing.
type jobLog struct {
	*stream
}

// openJobLog opens the file for appending. It returns nil if path is "".
func openJobLog(path string) (*jobLog, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if endsWithinLine(path) {
		if _, err := f.WriteString("\n"); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &jobLog{newStream(f)}, nil
}

// endsWithinLine reports whether a file ends without a newline, say after a full disk. The
// next line would otherwise continue that one.
func endsWithinLine(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false // this user may write the file and not read it
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

// write appends an attempt in a single write, so that several consumers can share a
// file.
func (l *jobLog) write(a *attempt) error {
	if l == nil {
		return nil
	}
	line, err := marshal(a)
	if err != nil {
		return err
	}
	_, err = l.Write(line)
	return err
}

func (l *jobLog) close() {
	if l != nil {
		l.file.Close()
	}
}

// hurry limits the time of each write, as stream.hurry does.
func (l *jobLog) hurry() {
	if l != nil {
		l.stream.hurry()
	}
}
