package main

import (
	"os"
	"syscall"
	"time"

	"github.com/zkq/zkq"
)

// attempt is a line of the job log.
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
	Signal     string    `json:"signal"` // that ended CMD
	Reason     string    `json:"reason"` // how CMD ended, if not well
	Outcome    string    `json:"outcome"`
}

func newAttempt(k *call, h *zkq.Held) *attempt {
	return &attempt{
		Start: time.Now().UTC(), Queue: k.queue, Name: h.Name, Priority: h.Priority,
		Deliveries: h.Deliveries, Failures: h.Failures, Token: h.Token,
	}
}

// ended notes how CMD ended.
func (a *attempt) ended(state *os.ProcessState) {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		a.Signal = ws.Signal().String()
		return
	}
	code := state.ExitCode()
	a.Exit = &code
}

// jobLog is the file of --joblog. A nil one keeps nothing.
type jobLog struct {
	*stream
}

func openJobLog(path string) (*jobLog, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if unfinished(path) {
		if _, err := f.WriteString("\n"); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &jobLog{newStream(f)}, nil
}

// unfinished says that a file ends within a line, as when its disk was full: a line
// of ours would not be one.
func unfinished(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false // it may be written and not read
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

// write appends an attempt in one write, so that several consumers may share a
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

func (l *jobLog) hurry() {
	if l != nil {
		l.stream.hurry()
	}
}
