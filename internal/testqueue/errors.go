package testqueue

import (
	"errors"

	"github.com/zkq/zkq"
)

// FinishErrors returns the errors of type *zkq.FinishError that err joins.
func FinishErrors(err error) (all []*zkq.FinishError) {
	if e, ok := err.(*zkq.FinishError); ok {
		return []*zkq.FinishError{e}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			all = append(all, FinishErrors(one)...)
		}
	} else if one := errors.Unwrap(err); one != nil {
		return FinishErrors(one)
	}
	return all
}
