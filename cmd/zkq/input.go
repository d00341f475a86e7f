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

// input yields the values to put, in order.
type input interface {
	// next returns the next value, or io.EOF after the last.
	next() ([]byte, error)
	// ready says that next will not wait for anybody.
	ready() bool
}

// tooLarge is the error for a value beyond what any queue takes.
func tooLarge(what string, size int) error {
	return &coord.LimitError{What: what, Unit: "bytes", Size: size, Limit: zkq.MaxValue}
}

// words are the values given as arguments.
type words struct{ rest []string }

func newWords(values []string) (*words, error) {
	for i, v := range values {
		if len(v) > zkq.MaxValue {
			return nil, tooLarge(fmt.Sprintf("value %d", i+1), len(v))
		}
	}
	return &words{values}, nil
}

func (w *words) next() ([]byte, error) {
	if len(w.rest) == 0 {
		return nil, io.EOF
	}
	v := w.rest[0]
	w.rest = w.rest[1:]
	return []byte(v), nil
}

func (w *words) ready() bool { return true }

// files are values in files of their own.
type files struct{ rest []string }

// newFiles looks at all the files before the first is put.
func newFiles(paths []string) (*files, error) {
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			return nil, &os.PathError{Op: "read", Path: p, Err: errors.New("is a directory")}
		case info.Mode().IsRegular() && info.Size() > zkq.MaxValue:
			return nil, tooLarge("file "+quoteWord(p), int(info.Size()))
		}
	}
	return &files{paths}, nil
}

func (f *files) next() ([]byte, error) {
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

func (f *files) ready() bool { return true }

// readValue reads all of r, and of what is too large no more than it must.
func readValue(r io.Reader, what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, zkq.MaxValue+1))
	if err != nil {
		return nil, err
	}
	if len(b) > zkq.MaxValue {
		// How much more there is, within reason: the reader may never end.
		n, _ := io.Copy(io.Discard, io.LimitReader(r, 1<<30))
		return nil, tooLarge(what, len(b)+int(n))
	}
	return b, nil
}

// whole is one value, all of a stream.
type whole struct {
	r    io.Reader
	done bool
}

func (w *whole) next() ([]byte, error) {
	if w.done {
		return nil, io.EOF
	}
	w.done = true
	return readValue(w.r, "standard input")
}

func (w *whole) ready() bool { return w.done }

// pieces are values that a byte ends.
type pieces struct {
	r     *bufio.Reader
	end   byte
	count int
	read  int64 // bytes
}

func newPieces(r io.Reader, end byte) *pieces {
	return &pieces{r: bufio.NewReaderSize(r, 256<<10), end: end}
}

func (p *pieces) next() ([]byte, error) {
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
			return nil, tooLarge(fmt.Sprintf("entry %d of standard input", p.count), len(value))
		}
		return value, nil
	}
}

// ready looks no further than what was read already, so that what a slow writer
// has sent is put before more is waited for.
func (p *pieces) ready() bool {
	b, _ := p.r.Peek(p.r.Buffered())
	return bytes.IndexByte(b, p.end) >= 0
}
