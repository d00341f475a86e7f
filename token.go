package zkq

import (
	"fmt"

	"github.com/zkq/zkq/internal/layout"
)

// Token names one put for ever, whether or not it was made. [Resolve] tells any process
// what became of that put, for at least 24 hours.
type Token string

// ParseToken returns the token that s spells, or an [ErrInvalid].
func ParseToken(s string) (Token, error) {
	if _, _, err := Token(s).parse(); err != nil {
		return "", err
	}
	return Token(s), nil
}

// token names the n-th put of a lane.
func token(lane string, n uint64) Token { return Token(layout.FormatToken(lane, n)) }

// parse splits a token into its lane's name and the put's number there.
func (t Token) parse() (lane string, n uint64, err error) {
	lane, n, ok := layout.ParseToken(string(t))
	if !ok {
		return "", 0, fmt.Errorf("token %q: tokens are spelled like 9f86d081884c7d65-00-1: %w", string(t), ErrInvalid)
	}
	return lane, n, nil
}
