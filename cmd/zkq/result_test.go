package main

import (
	"errors"
	"testing"

	"github.com/zkq/zkq/coord"
)

func TestUnreachableNeverHidesAnUnknownOutcome(t *testing.T) {
	gone := errors.Join(errors.New("h:1"), coord.ErrUnreachable)
	for _, tt := range []struct {
		tally tally
		fatal error
		code  int
	}{
		{tally{done: 1}, gone, exitUnreachable},
		{tally{lost: 1}, gone, exitUnreachable},
		{tally{unknown: 1}, gone, exitUnknown},
		{tally{unknown: 1, failed: 1, released: 1}, gone, exitUnknown},
		{tally{unknown: 1, lost: 1}, gone, exitLockLost},
		{tally{unknown: 1}, errors.New("disk full"), exitFailed},
		{tally{unknown: 1, failed: 1}, nil, exitUnknown},
		{tally{dead: 1, done: 1}, nil, exitSome},
	} {
		c := &consumer{call: &call{program: &program{}}, tally: tt.tally, fatal: tt.fatal}
		var f *failure
		if !errors.As(c.result(), &f) || f.code != tt.code {
			t.Errorf("%+v, ended by %v: %+v, want exit %d", tt.tally, tt.fatal, f, tt.code)
		}
	}
}
