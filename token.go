package zkq

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
)

// Token names one put for ever, whether it was made or not. What became of it is
// told by [Resolve] to any process, for at least 24 hours.
type Token string

// ParseToken returns the token that s spells, or an [ErrInvalid].
func ParseToken(s string) (Token, error) {
	if _, _, err := Token(s).parse(); err != nil {
		return "", err
	}
	return Token(s), nil
}

// token names the n-th put of a lane.
func token(lane string, n uint64) Token { return Token(fmt.Sprintf("%s-%d", lane, n)) }

var (
	laneForm  = regexp.MustCompile(`^[0-9a-f]{16}-[0-9]{2}$`)
	tokenForm = regexp.MustCompile(`^([0-9a-f]{16}-[0-9]{2})-([1-9][0-9]{0,18})$`)
)

// parse splits a token into its lane's name and the put's number there.
func (t Token) parse() (lane string, n uint64, err error) {
	m := tokenForm.FindStringSubmatch(string(t))
	if m == nil {
		return "", 0, fmt.Errorf("token %q: tokens are spelled like 9f86d081884c7d65-00-1: %w", string(t), ErrInvalid)
	}
	n, err = strconv.ParseUint(m[2], 10, 64)
	return m[1], n, err
}

// marker is what a lane's node says of its last put. It is written "1 <n> put
// <note>": by the put itself, in the commit that creates the entries, or with
// "void" by whoever made sure that the put will never be applied.
type marker struct {
	n    uint64 // 0 when the lane has had none
	void bool
	note []byte
}

func (m marker) value() []byte {
	state := "put"
	if m.void {
		state = "void"
	}
	b := fmt.Appendf(nil, "1 %d %s", m.n, state)
	if len(m.note) > 0 {
		b = append(append(b, ' '), m.note...)
	}
	return b
}

// parseMarker reads a lane's node.
func parseMarker(value []byte) (m marker, ok bool) {
	fields := bytes.SplitN(value, []byte(" "), 4)
	if len(fields) < 3 || string(fields[0]) != "1" {
		return m, false
	}
	n, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return m, false
	}
	m.n, m.void = n, string(fields[2]) == "void"
	if len(fields) == 4 {
		m.note = fields[3]
	}
	return m, m.void || string(fields[2]) == "put"
}
