package lane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Applied is a commit that was applied once.
type Applied struct {
	Results  []coord.Result // of its ops; nil when the answer was lost
	Revision int64
}

// Sender sends one attempt at a commit, as [coord.Session.Commit] does. It may add ops of its
// own: the results, and the index of a refused op, are those of the ops that it was given. A
// [*Declined] error says that it sent nothing.
type Sender func(ctx context.Context, ops ...coord.Op) ([]coord.Result, error)

// Declined is the error of a [Sender] that did not send the commit, because it cannot be made
// for now. The caller of Commit gets Err, and the commit is not applied later.
type Declined struct{ Err error }

func (e *Declined) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Declined) Unwrap() error { return e.Err }

// Commit commits the ops exactly once, in a lane that is idle. Each attempt is sent by send; nil
// stands for the session's Commit. The error is an [*UnknownError], or nothing was changed.
func (s *Set) Commit(ctx context.Context, note []byte, ops []coord.Op, send Sender) (Applied, error) {
	s.sweepIfDue()
	if err := s.enter(ctx); err != nil {
		return Applied{}, err
	}
	defer func() { <-s.sem }()
	for {
		l := s.takeIdle()
		switch {
		case l == nil:
			var err error
			if l, err = s.open(ctx); err != nil {
				return Applied{}, err
			}
		case time.Since(l.wrote) > maxIdle && !s.refresh(ctx, l):
			continue
		}
		done, err := s.commitIn(ctx, l, note, ops, send)
		if errors.Is(err, errUnusable) {
			continue
		}
		// A lane whose commit has an unknown outcome takes no other: it is left for Resolve.
		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			s.putBack(l)
		}
		return done, err
	}
}

// CommitAs makes the commit that a token names, exactly once. It calls build for the ops just
// before, and send as Commit does. If any process has made the commit already, CommitAs changes
// nothing, and returns its revision without Results. [ErrVoid]: the commit was resolved as not applied. [ErrExpired]: the
// service no longer knows.
func (s *Set) CommitAs(ctx context.Context, token string, note []byte, build func(context.Context) ([]coord.Op, error), send Sender) (Applied, error) {
	name, n, err := parse(token)
	if err != nil {
		return Applied{}, err
	}
	s.sweepIfDue()
	l := &lane{name: name, n: n - 1}
	var done Applied
	err, _ = s.config.Backoff().Do(ctx, nil, func() (retry.Decision, error) {
		var node coord.Node
		var m layout.Marker
		session, err := s.config.Session(ctx)
		if err == nil {
			node, m, err = readMarker(ctx, session, l.path())
		}
		switch {
		case err != nil:
			return retry.Decide(err), err
		case m.N == n && m.Void:
			return retry.Stop, fmt.Errorf("token %s: %w", token, ErrVoid)
		case m.N == n:
			done.Revision = node.Revision
			return retry.Stop, nil
		case m.N > n:
			return retry.Stop, fmt.Errorf("token %s: its producer has put again since, and is at number %d: %w", token, m.N, ErrExpired)
		case m.N+1 < n:
			return retry.Stop, fmt.Errorf("token %s: its producer has only come to number %d: %w", token, m.N, coord.ErrInvalid)
		}
		l.fence = node.Fence
		ops, err := build(ctx)
		if err != nil {
			return retry.Stop, err
		}
		if done, err = s.commitIn(ctx, l, note, ops, send); errors.Is(err, errUnusable) {
			return retry.Now, err
		}
		return retry.Stop, err
	})
	return done, err
}

// commitIn commits the ops as the lane's next commit, and sends it again until the outcome
// is known.
func (s *Set) commitIn(ctx context.Context, l *lane, note []byte, ops []coord.Op, send Sender) (Applied, error) {
	next := layout.Marker{N: l.n + 1, Note: note}
	all := append([]coord.Op{coord.Set(l.path(), next.Value(), l.fence)}, ops...)
	inDoubt, began := false, time.Now() // inDoubt: an attempt got no answer
	var done Applied
	var refusal error // the result of the commit if it was refused, and can never be applied any more
	backoff := s.config.Backoff()
	err, _ := backoff.Do(ctx, nil, func() (retry.Decision, error) {
		session, err := s.config.Session(ctx)
		if err == nil {
			var rs []coord.Result
			if rs, err = sendIn(ctx, session, send, all); err == nil {
				l.advance(next.N, rs[0].Fence, began)
				backoff.Succeeded()
				done = Applied{rs[1:], rs[0].Revision}
				return retry.Stop, nil
			}
			if retry.RefusedOp(err) == 0 {
				done, err = outcome(ctx, session, l, next.N, inDoubt, began)
			}
		}
		switch {
		case err == nil:
			return retry.Stop, nil
		case errors.Is(err, errUnusable):
			refusal = err
			return retry.Stop, err
		case errors.Is(err, coord.ErrUnknown):
			inDoubt = true
		case inDoubt && mayPassLater(err):
			// The reason may be gone before an attempt arrives that is still under way. So the
			// lane moves on, and that attempt can never be applied.
			inTheWay := withoutLane(err)
			var rs []coord.Result
			if rs, err = session.Commit(ctx, coord.Set(l.path(), layout.Marker{N: next.N, Void: true}.Value(), l.fence)); err == nil {
				l.advance(next.N, rs[0].Fence, began)
				refusal = inTheWay
				return retry.Stop, inTheWay
			}
			if retry.IsRefused(err) { // an attempt was applied after all, or another process wrote to the lane
				if done, err = outcome(ctx, session, l, next.N, inDoubt, began); errors.Is(err, errUnusable) {
					refusal = err
				}
			}
		case retry.RefusedOp(err) > 0, isDeclined(err):
			// What is in the way stays: an attempt that is still under way will be refused
			// for it, too.
			refusal = withoutLane(err)
			return retry.Stop, refusal
		}
		return retry.Decide(err), err
	})
	switch {
	case err == nil:
		return done, nil
	case refusal != nil:
		return Applied{}, refusal
	case inDoubt:
		return Applied{}, &UnknownError{layout.FormatToken(l.name, next.N), retry.WithDeadline(ctx, err)}
	}
	return Applied{}, withoutLane(err)
}

// sendIn makes one attempt at a commit, with send where there is one.
func sendIn(ctx context.Context, session coord.Session, send Sender, ops []coord.Op) ([]coord.Result, error) {
	if send == nil {
		return session.Commit(ctx, ops...)
	}
	return send(ctx, ops...)
}

// isDeclined reports whether the sender sent nothing.
func isDeclined(err error) bool {
	var declined *Declined
	return errors.As(err, &declined)
}

// mayPassLater reports whether the attempt failed for a reason that another client may take
// away, so that an earlier attempt would be applied after all: a node that is in the way, or a
// queue without room.
func mayPassLater(err error) bool {
	return isDeclined(err) || retry.RefusedOp(err) > 0 && errors.Is(err, coord.ErrExist)
}

// outcome reads the lane's node after the service has refused the lane's next commit n for it.
// Either an earlier attempt at n was applied, which is a success, or another process has written
// to the lane. errUnusable: the commit was not applied, and needs another lane. [ErrExpired]:
// it may have been applied, but the service no longer knows.
func outcome(ctx context.Context, session coord.Session, l *lane, n uint64, inDoubt bool, began time.Time) (Applied, error) {
	node, err := session.Get(ctx, l.path())
	if errors.Is(err, coord.ErrNotExist) {
		if inDoubt {
			return Applied{}, fmt.Errorf("lane %s: %w", l.name, ErrExpired)
		}
		return Applied{}, errUnusable
	}
	if err != nil {
		return Applied{}, err
	}
	m, ok := layout.ParseMarker(node.Value)
	switch {
	case !inDoubt:
		return Applied{}, errUnusable
	case !ok || m.N != n:
		return Applied{}, fmt.Errorf("lane %s says %.40q: %w", l.name, node.Value, ErrExpired)
	case m.Void:
		return Applied{}, errUnusable
	}
	l.advance(n, node.Fence, began)
	return Applied{Revision: node.Revision}, nil
}

// withoutLane returns a commit's error as its caller gets it: what a sender declined for, or a
// refusal with the index that the op has among the caller's ops, which follow the lane's.
func withoutLane(err error) error {
	var declined *Declined
	if errors.As(err, &declined) {
		return declined.Err
	}
	var r *coord.Refusal
	if !errors.As(err, &r) || r.Index == 0 {
		return err
	}
	return &coord.Refusal{Index: r.Index - 1, Op: r.Op, Err: r.Err}
}
