package main

import (
	"bytes"
	"io"
	"os"
)

// spillOver is how much of a command's output is kept in memory.
const spillOver = 1 << 20

// spill keeps what is written to it, beyond a certain size in a file.
type spill struct {
	buf  bytes.Buffer
	file *os.File // has no name any more
	err  error    // why something is missing
}

func (s *spill) Write(b []byte) (int, error) {
	n, err := s.keep(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

func (s *spill) keep(b []byte) (int, error) {
	if s.file == nil && s.buf.Len()+len(b) <= spillOver {
		return s.buf.Write(b)
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "zkq-output-")
		if err != nil {
			return 0, err
		}
		s.file = f
		os.Remove(f.Name()) // so that it goes with the process, however that ends
		if _, err := f.Write(s.buf.Bytes()); err != nil {
			return 0, err
		}
		s.buf = bytes.Buffer{}
	}
	return s.file.Write(b)
}

// to writes all of it at once, or nothing if a part is missing.
func (s *spill) to(o *output) error {
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
