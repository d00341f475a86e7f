package main

import (
	"bytes"
	"io"
	"os"
)

// spillOver is the largest output of a command, in bytes, that is kept in memory.
const spillOver = 1 << 20

// spill holds the output of a command: in memory, or beyond spillOver in a file.
type spill struct {
	buf  bytes.Buffer
	file *os.File // already unlinked; nil while buf holds everything
	err  error    // why a part of the output is missing
}

func (s *spill) Write(b []byte) (int, error) {
	n, err := s.store(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

// store keeps b. It moves the output to a file when it exceeds spillOver.
func (s *spill) store(b []byte) (int, error) {
	if s.file == nil && s.buf.Len()+len(b) <= spillOver {
		return s.buf.Write(b)
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "zkq-output-")
		if err != nil {
			return 0, err
		}
		s.file = f
		os.Remove(f.Name()) // the file vanishes with the process, even after SIGKILL
		if _, err := f.Write(s.buf.Bytes()); err != nil {
			return 0, err
		}
		s.buf = bytes.Buffer{}
	}
	return s.file.Write(b)
}

// writeTo writes the whole output as one piece, or returns s.err if a part is missing.
func (s *spill) writeTo(o *output) error {
	switch {
	case s.err != nil:
		return s.err
	case s.file != nil:
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return o.copy(s.file)
	case s.buf.Len() > 0:
		return o.write(s.buf.Bytes())
	}
	return nil
}

func (s *spill) close() {
	if s.file != nil {
		s.file.Close()
	}
}
