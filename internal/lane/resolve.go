package lane

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Outcome is what became of the commit that a token names.
type Outcome struct {
	Applied  bool   // false: it was not applied, and never will be
	Note     []byte // of an applied commit
	Revision int64  // of an applied commit
}

// parse splits a token into its lane and the number of its commit there.
func parse(token string) (lane string, n uint64, err error) {
	lane, n, ok := layout.ParseToken(token)
	if !ok {
		return "", 0, fmt.Errorf("token %q: tokens are spelled like 9f86d081884c7d65-00-1: %w", token, coord.ErrInvalid)
	}
	return lane, n, nil
}

// Resolve returns what became of the commit that a token names. If it was not applied
// until now, Resolve makes sure that it never will be, not even by an attempt that is still
// under way. [ErrExpired]: the service no longer knows.
func Resolve(ctx context.Context, c coord.Coordinator, token string) (Outcome, error) {
	name, n, err := parse(token)
	if err != nil {
		return Outcome{}, err
	}
	var o Outcome
	err = repeat(ctx, c, func(session coord.Session) (err error) {
		o, err = resolveIn(ctx, session, Path(name), n)
		return err
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("resolve %s: %w", token, err)
	}
	return o, nil
}

// repeat calls f in a live session until its answer is final. It pauses, and calls f again, if
// there was no answer, if the service was busy, or if another process wrote to the lane.
func repeat(ctx context.Context, c coord.Coordinator, f func(coord.Session) error) error {
	var backoff retry.Backoff
	err, interrupted := backoff.Do(ctx, nil, func() (retry.Decision, error) {
		session, err := c.Session(ctx)
		if err == nil {
			err = f(session)
		}
		if errors.Is(err, coord.ErrUnknown) || retry.IsRefused(err) || retry.Decide(err) != retry.Stop {
			return retry.Later, err
		}
		return retry.Stop, err
	})
	if interrupted != nil {
		return retry.WithDeadline(ctx, retry.NotApplied(ctx, err))
	}
	return err
}

// resolveIn is one attempt at Resolve. It returns a refusal when another process wrote to
// the lane after this one read it.
func resolveIn(ctx context.Context, session coord.Session, lane string, n uint64) (Outcome, error) {
	node, m, err := readMarker(ctx, session, lane)
	switch {
	case err != nil:
		return Outcome{}, err
	case m.N == n && m.Void:
		return Outcome{}, nil
	case m.N == n:
		return Outcome{Applied: true, Note: m.Note, Revision: node.Revision}, nil
	case m.N > n: // a lane goes on only when the outcome is known to its handle
		return Outcome{}, fmt.Errorf("its producer has put again since, and is at number %d: %w", m.N, ErrExpired)
	case m.N+1 < n:
		return Outcome{}, fmt.Errorf("its producer has only come to number %d: %w", m.N, coord.ErrInvalid)
	}
	_, err = session.Commit(ctx, coord.Set(lane, layout.Marker{N: n, Void: true}.Value(), node.Fence))
	return Outcome{}, err
}

// readMarker reads a lane's node. [ErrExpired]: the node does not exist.
func readMarker(ctx context.Context, session coord.Session, lane string) (coord.Node, layout.Marker, error) {
	node, err := session.Get(ctx, lane)
	if errors.Is(err, coord.ErrNotExist) {
		return node, layout.Marker{}, fmt.Errorf("nothing is known of producer %s any more: %w", path.Base(lane), ErrExpired)
	}
	if err != nil {
		return node, layout.Marker{}, err
	}
	m, ok := layout.ParseMarker(node.Value)
	if !ok {
		return node, m, fmt.Errorf("%s holds %.40q, which is not a marker of this version: %w", lane, node.Value, ErrExpired)
	}
	return node, m, nil
}

// Forget removes the node of a token's lane, and with it the outcome of its commit. If the node
// is gone, or the lane has gone on since, Forget changes nothing.
func Forget(ctx context.Context, c coord.Coordinator, token string) error {
	name, n, err := parse(token)
	if err != nil {
		return err
	}
	return repeat(ctx, c, func(session coord.Session) error {
		node, m, err := readMarker(ctx, session, Path(name))
		switch {
		case errors.Is(err, ErrExpired), err == nil && m.N > n:
			return nil
		case err != nil:
			return err
		case m.N+1 < n: // another producer is at work in it
			return fmt.Errorf("its producer has only come to number %d: %w", m.N, coord.ErrInvalid)
		}
		_, err = session.Commit(ctx, coord.Delete(Path(name), node.Fence))
		return err
	})
}
