package testproxy

// Protocol follows what is said on one connection. Requests and Replies are called from a goroutine each.
type Protocol interface {
	// Requests sees bytes before they go to the server, and returns those that are to go. Of each transaction that
	// begins it asks whether its answer is one that may be lost.
	Requests(b []byte, meant func(request []byte) bool) []byte

	// Replies takes bytes of the server's and returns those that may go to the client now. Before an answer that may be
	// lost it asks whether it is; then the connection ends there, and last is true.
	Replies(b []byte, lose func() bool) (may []byte, last bool)

	// Dialer names who made the connection, "" before it is known.
	Dialer() string
}

// plain carries any bytes.
type plain struct{}

func (plain) Requests(b []byte, _ func([]byte) bool) []byte  { return b }
func (plain) Replies(b []byte, _ func() bool) ([]byte, bool) { return b, false }
func (plain) Dialer() string                                 { return "" }

// Frames cuts one direction of a connection into frames. Length says how long the frame is that begins with b: 0 when b is
// too short to tell, less when it is no frame at all.
type Frames struct {
	Length func(b []byte) int
	rest   []byte
	raw    bool
}

// Raw says that no frames come here.
func (f *Frames) Raw() bool { return f.raw }

// Add takes bytes, and returns the frames that are complete with them. What is no frame is returned as nil frames and
// raw bytes, then and ever after.
func (f *Frames) Add(b []byte) (frames [][]byte, raw []byte) {
	if f.raw {
		return nil, b
	}
	f.rest = append(f.rest, b...)
	for {
		n := f.Length(f.rest)
		switch {
		case n < 0:
			f.raw = true
			raw, f.rest = f.rest, nil
			return frames, raw
		case n == 0 || n > len(f.rest):
			f.rest = append([]byte(nil), f.rest...) // the frames keep the old one
			return frames, nil
		}
		frames = append(frames, f.rest[:n:n])
		f.rest = f.rest[n:]
	}
}
