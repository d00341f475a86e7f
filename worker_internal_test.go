package zkq

import (
	"errors"
	"fmt"
	"testing"

	"github.com/zkq/zkq/coord"
)

func TestErrorsOfAnExchangeAreTakenApart(t *testing.T) {
	a, b := &Held{}, &Held{}
	taking := errors.New("taking")
	for _, tt := range []struct {
		err  error
		a, b error
		rest error
	}{
		{nil, nil, nil, nil},
		{taking, nil, nil, taking},
		{&FinishError{Held: a, Err: ErrLockLost}, ErrLockLost, nil, nil},
		{errors.Join(&FinishError{Held: a, Err: ErrLockLost}, nil, &FinishError{Held: b, Err: ErrUnknown}), ErrLockLost, ErrUnknown, nil},
		{errors.Join(errors.Join(&FinishError{Held: b, Err: ErrUnknown}), taking), nil, ErrUnknown, taking},
		{fmt.Errorf("exchange: %w", errors.Join(&FinishError{Held: a, Err: ErrLockLost}, fmt.Errorf("%w: %w", taking, coord.ErrUnknown))), ErrLockLost, nil, taking},
	} {
		results := map[*Held]error{}
		rest := splitFinishErrors(tt.err, results)
		if results[a] != tt.a || results[b] != tt.b || !errors.Is(rest, tt.rest) || (rest == nil) != (tt.rest == nil) {
			t.Errorf("%v: a %v, b %v, and %v", tt.err, results[a], results[b], rest)
		}
	}
}
