package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// errStuck is the error of a write that did not end in time, and of all later writes.
var errStuck = errors.New("the reader of the output does not read")

// outputError is an error of a write to a stream of this process. Its type tells a broken
// pipe from a broken connection to a server.
type outputError struct{ err error }

func (e *outputError) Error() string {
	if errors.Is(e.err, syscall.EPIPE) {
		return "the reader of the output went away"
	}
	return e.err.Error()
}

func (e *outputError) Unwrap() error { return e.err }

// hurriedWrite is the longest time for a write when the process is about to end.
const hurriedWrite = time.Second

// stream is a file that zkq writes to, one write at a time. A write can block for ever, if
// the reader of a pipe does not read or a terminal is stopped.
//
// After hurry, a write that takes longer than hurriedWrite returns errStuck, and every
// later write fails at once. Thus a signal ends zkq even if its output is blocked.
type stream struct {
	w       io.Writer
	file    *os.File      // w, or nil if w is no file
	sem     chan struct{} // one-token lock; held during a write
	hurried chan struct{} // closed by hurry
	stuck   chan struct{} // closed when a write has returned errStuck

	hurryOnce, stuckOnce sync.Once
}

func newStream(w io.Writer) *stream {
	s := &stream{w: w, sem: make(chan struct{}, 1), hurried: make(chan struct{}), stuck: make(chan struct{})}
	s.file, _ = w.(*os.File)
	return s
}

// hurry limits the time of all writes from now on, and of one in progress.
func (s *stream) hurry() { s.hurryOnce.Do(func() { close(s.hurried) }) }

// Write writes b as one piece.
func (s *stream) Write(b []byte) (n int, err error) {
	err = s.do(nil, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}, nil)
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// do calls before, write and after while no other write runs. before and after may be nil;
// after gets the error of write. If do returns errStuck, write still runs.
func (s *stream) do(before func(), write func(io.Writer) error, after func(error)) error {
	select {
	case <-s.stuck:
		return errStuck
	default:
	}
	select {
	case s.sem <- struct{}{}:
	case <-s.stuck:
		return errStuck
	}
	if before != nil {
		before()
	}
	err := s.await(write)
	if after != nil {
		after(err)
	}
	if !errors.Is(err, errStuck) {
		<-s.sem
	}
	return err
}

// await runs write. It returns errStuck if write takes too long after hurry.
func (s *stream) await(write func(io.Writer) error) error {
	if s.file == nil {
		return outputFailure(write(s.w))
	}
	result := make(chan error, 1)
	go func() { result <- write(s.w) }()
	select {
	case err := <-result:
		return outputFailure(err)
	case <-s.hurried:
	}
	t := time.NewTimer(hurriedWrite)
	defer t.Stop()
	select {
	case err := <-result:
		return outputFailure(err)
	case <-t.C:
		s.stuckOnce.Do(func() { close(s.stuck) })
		return errStuck
	}
}

// outputFailure returns err as an outputError, or nil.
func outputFailure(err error) error {
	if err == nil {
		return nil
	}
	return &outputError{err}
}
