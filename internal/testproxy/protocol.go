package testproxy

import (
	"slices"
	"sync"
)

// Protocol follows the messages on one connection. The link calls Requests from one goroutine
// and Replies from another.
type Protocol interface {
	// Requests sees bytes before they go to the server, and returns those that are to go.
	// For each transaction that begins it asks isMeant whether its answer is to be lost.
	Requests(b []byte, isMeant func(request []byte) bool) []byte

	// Replies takes bytes of the server and returns those that may go to the client now.
	// Before an answer that was meant it asks lose. If that reports true, the connection
	// ends there, and isLast is true.
	Replies(b []byte, lose func() bool) (passing []byte, isLast bool)

	// Dialer returns the name of the client that made the connection, or "" before it is
	// known.
	Dialer() string
}

// opaque carries any bytes.
type opaque struct{}

func (opaque) Requests(b []byte, _ func([]byte) bool) []byte  { return b }
func (opaque) Replies(b []byte, _ func() bool) ([]byte, bool) { return b, false }
func (opaque) Dialer() string                                 { return "" }

// Framed is a [Protocol] whose messages are frames. It splits the bytes into frames and
// passes whole frames only. A connection whose first request is no frame is carried as it is.
type Framed struct {
	// Request sees each frame of the client. It asks isMeant about the body of a
	// transaction, and remembers the transactions that are meant.
	Request func(frame []byte, isMeant func(request []byte) bool)

	// Reply sees each frame of the server, and reports whether it answers a transaction
	// that is meant.
	Reply func(frame []byte) (isMeant bool)

	requests, replies frames
	mu                sync.Mutex // Request and Reply are called with it held
}

// NewFramed returns a Framed without its functions. The length functions return the length
// of the frame that b begins with: 0 if b is too short to tell, less if it is no frame.
func NewFramed(requestLength, replyLength func(b []byte) int) *Framed {
	return &Framed{requests: frames{length: requestLength}, replies: frames{length: replyLength}}
}

// Requests implements [Protocol].
func (f *Framed) Requests(b []byte, isMeant func([]byte) bool) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	complete, raw := f.requests.add(b)
	for _, frame := range complete {
		f.Request(frame, isMeant)
	}
	return slices.Concat(append(complete, raw)...)
}

// Replies implements [Protocol].
func (f *Framed) Replies(b []byte, lose func() bool) (passing []byte, isLast bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.requests.isRaw {
		return b, false
	}
	complete, raw := f.replies.add(b)
	for _, frame := range complete {
		if f.Reply(frame) && lose() {
			return passing, true
		}
		passing = append(passing, frame...)
	}
	return append(passing, raw...), false
}

// Dialer implements [Protocol]. It is not known.
func (f *Framed) Dialer() string { return "" }

// frames splits one direction of a connection into frames.
type frames struct {
	length  func(b []byte) int
	pending []byte // of a frame that is not complete
	isRaw   bool   // bytes came that are no frame
}

// add takes bytes and returns the frames that are complete with them. From the first bytes
// on that are no frame, it returns all bytes as raw.
func (f *frames) add(b []byte) (complete [][]byte, raw []byte) {
	if f.isRaw {
		return nil, b
	}
	f.pending = append(f.pending, b...)
	for {
		n := f.length(f.pending)
		switch {
		case n < 0:
			f.isRaw = true
			raw, f.pending = f.pending, nil
			return complete, raw
		case n == 0 || n > len(f.pending):
			f.pending = append([]byte(nil), f.pending...) // the frames share the old array
			return complete, nil
		}
		complete = append(complete, f.pending[:n:n])
		f.pending = f.pending[n:]
	}
}
