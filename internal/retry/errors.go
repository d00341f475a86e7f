package retry

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
)

// NothingSent reports whether the session ended before anything was sent. The same attempt can
// be made in another session.
func NothingSent(err error) bool {
	return errors.Is(err, coord.ErrSessionLost) && !errors.Is(err, coord.ErrUnknown)
}

// IsBusy reports whether the service refused the attempt for now, and nothing was changed.
func IsBusy(err error) bool {
	return errors.Is(err, coord.ErrBusy) && !errors.Is(err, coord.ErrUnknown)
}

// IsRefused reports whether the service refused a commit because a node exists, is missing, or
// has another version. Nothing was changed.
func IsRefused(err error) bool { return RefusedOp(err) >= 0 }

// Decide returns how an operation goes on after an attempt that ended with err. The operation
// must be one that may be made twice, or that the service applies at most once. It goes on in
// the next session after one in which nothing was sent, and after a pause if the service was
// busy or did not answer.
func Decide(err error) Decision {
	switch {
	case errors.Is(err, coord.ErrClosed):
		return Stop
	case NothingSent(err):
		return Now
	case errors.Is(err, coord.ErrUnknown), errors.Is(err, coord.ErrBusy):
		return Later
	}
	return Stop
}

// LaterIfBusy returns [Later] if the service refused the attempt for now and nothing was
// changed, and otherwise [Stop].
func LaterIfBusy(err error) Decision {
	if IsBusy(err) {
		return Later
	}
	return Stop
}

// RefusedOp returns the index of the op for which the service refused the commit, or -1 if
// err is no refusal.
func RefusedOp(err error) int {
	var refusal *coord.Refusal
	if errors.As(err, &refusal) {
		return refusal.Index
	}
	return -1
}

// WithDeadline adds ctx.Err() to err when ctx ended before another attempt.
func WithDeadline(ctx context.Context, err error) error {
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		return fmt.Errorf("%w: %w", end, err)
	}
	return err
}

// BusyUntil adds err to interrupted, which ended an operation's wait, when the operation
// waited for a busy service: the user learns the cause.
func BusyUntil(interrupted, err error) error {
	if !IsBusy(err) {
		return interrupted
	}
	return fmt.Errorf("%w: %w", interrupted, err)
}

// NotApplied turns an error without an answer ([coord.ErrUnknown]) into one that does not
// say so, for a commit of which the caller need not know whether it was applied.
func NotApplied(ctx context.Context, err error) error {
	switch {
	case !errors.Is(err, coord.ErrUnknown):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: not answered (%v): %w", ctx.Err(), err, coord.ErrUnreachable)
	}
	return fmt.Errorf("not answered (%v): %w", err, coord.ErrUnreachable)
}
