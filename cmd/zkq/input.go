package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// input yields the values to put, in order. It is used by one goroutine.
type input interface {
	// next returns the next value, or io.EOF after the last.
	next() ([]byte, error)
	// ready reports whether next can return without waiting for more input.
	ready() bool
}

// tooLargeError returns the error for a value that is larger than any queue takes.
func tooLargeError(what string, size int) error {
	return &coord.LimitError{What: what, Unit: "bytes", Size: size, Limit: zkq.MaxValue}
}

// argumentInput yields the values given as arguments.
type argumentInput struct{ rest []string }

func newArgumentInput(values []string) (*argumentInput, error) {
	for i, v := range values {
		if len(v) > zkq.MaxValue {
			return nil, tooLargeError(fmt.Sprintf("value %d", i+1), len(v))
		}
	}
	return &argumentInput{values}, nil
}

func (w *argumentInput) next() ([]byte, error) {
	if len(w.rest) == 0 {
		return nil, io.EOF
	}
	v := w.rest[0]
	w.rest = w.rest[1:]
	return []byte(v), nil
}

func (w *argumentInput) ready() bool { return true }

// fileInput yields the contents of files, one value each.
type fileInput struct{ rest []string }

// newFileInput checks all files first, so that a bad path fails before any put.
func newFileInput(paths []string) (*fileInput, error) {
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			return nil, &os.PathError{Op: "read", Path: p, Err: errors.New("is a directory")}
		case info.Mode().IsRegular() && info.Size() > zkq.MaxValue:
			return nil, tooLargeError("file "+quoteWord(p), int(info.Size()))
		}
	}
	return &fileInput{paths}, nil
}

func (f *fileInput) next() ([]byte, error) {
	if len(f.rest) == 0 {
		return nil, io.EOF
	}
	path := f.rest[0]
	f.rest = f.rest[1:]
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readValue(file, "file "+quoteWord(path))
}

func (f *fileInput) ready() bool { return true }

// readValue reads all of r. If that is too large, it returns a LimitError, and does not
// keep the rest in memory.
func readValue(r io.Reader, what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, zkq.MaxValue+1))
	if err != nil {
		return nil, err
	}
	if len(b) > zkq.MaxValue {
		// Count up to 1 GiB more for the error: the reader may never end.
		n, _ := io.Copy(io.Discard, io.LimitReader(r, 1<<30))
		return nil, tooLargeError(what, len(b)+int(n))
	}
	return b, nil
}

// wholeInput yields all of a stream as one value.
type wholeInput struct {
	r    io.Reader
	done bool
}

func (w *wholeInput) next() ([]byte, error) {
	if w.done {
		return nil, io.EOF
	}
	w.done = true
	return readValue(w.r, "standard input")
}

func (w *wholeInput) ready() bool { return w.done }

// delimitedInput yields the parts of a stream that a byte ends, a newline or NUL. The last part
// may lack it.
type delimitedInput struct {
	r     *bufio.Reader
	end   byte
	count int   // values returned or refused
	read  int64 // bytes consumed
}

func newDelimitedInput(r io.Reader, end byte) *delimitedInput {
	return &delimitedInput{r: bufio.NewReaderSize(r, 256<<10), end: end}
}

func (p *delimitedInput) next() ([]byte, error) {
	var value []byte
	for {
		part, err := p.r.ReadSlice(p.end)
		value = append(value, part...)
		p.read += int64(len(part))
		switch {
		case err == nil:
			p.count++
			value = value[:len(value)-1]
		case errors.Is(err, bufio.ErrBufferFull) && len(value) <= zkq.MaxValue:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			p.count++
		case errors.Is(err, io.EOF) && len(value) > 0:
			p.count++
		default:
			return nil, err
		}
		if len(value) > zkq.MaxValue {
			return nil, tooLargeError(fmt.Sprintf("entry %d of standard input", p.count), len(value))
		}
		return value, nil
	}
}

// ready looks only at input that has been read already. Values that a slow writer has
// sent are thus put before the next read waits.
func (p *delimitedInput) ready() bool {
	b, _ := p.r.Peek(p.r.Buffered())
	return bytes.IndexByte(b, p.end) >= 0
}
