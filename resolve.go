package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Outcome is what became of a put.
type Outcome struct {
	// Applied: the entries were put. Otherwise they were not, and never will be.
	Applied bool

	// Note is what [WithNote] had put beside the entries.
	Note []byte

	revision int64
}

// NewToken returns a token for a put that is to be made with [WithToken]. A
// program that stores it before the put can find out after a crash whether the put
// was made, or make it again: with one token at most one put is ever applied. It
// costs a commit and a node, which goes after a day or two, or with [Forget].
func (b *base) NewToken(ctx context.Context) (Token, error) {
	b.lanes.sweepLanes()
	var t Token
	err := b.handle.bounded(ctx, func(ctx context.Context) error {
		l, err := b.lanes.openLane(ctx)
		if err == nil {
			t = token(l.name, 1)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("new token for %s: %w", b.handle.root, err)
	}
	return t, nil
}

// Resolve returns what became of the put with the token t. If it was not applied
// until now it is made sure that it never will be: also not by an attempt that is
// still on its way. [ErrTokenExpired]: too late to tell.
func Resolve(ctx context.Context, c coord.Coordinator, t Token) (Outcome, error) {
	name, n, err := t.parse()
	if err != nil {
		return Outcome{}, err
	}
	l := lane{name: name}
	for backoff := new(retry.Backoff); ; {
		s, err := c.Session(ctx)
		if err == nil {
			var o Outcome
			if o, err = resolveIn(ctx, s, l.path(), n); err == nil {
				return o, nil
			}
		}
		if again := errors.Is(err, coord.ErrUnknown) || errors.Is(err, coord.ErrBusy) || retry.IsRefused(err); !retry.NothingSent(err) && !again {
			return Outcome{}, fmt.Errorf("resolve %s: %w", t, err)
		}
		if werr := backoff.Wait(ctx, nil, err); werr != nil {
			return Outcome{}, fmt.Errorf("resolve %s: %w", t, retry.WithDeadline(ctx, retry.NotApplied(ctx, err)))
		}
	}
}

// resolveIn returns [ErrVersion] when the lane changed under its hands.
func resolveIn(ctx context.Context, s coord.Session, lane string, n uint64) (Outcome, error) {
	node, m, err := readMarker(ctx, s, lane)
	switch {
	case err != nil:
		return Outcome{}, err
	case m.N == n && m.Void:
		return Outcome{}, nil
	case m.N == n:
		return Outcome{Applied: true, Note: m.Note, revision: node.Revision}, nil
	case m.N > n: // the lane went on, and does so only when the outcome was told
		return Outcome{}, fmt.Errorf("its producer has put again since, and is at number %d: %w", m.N, ErrTokenExpired)
	case m.N+1 < n:
		return Outcome{}, fmt.Errorf("its producer has only come to number %d: %w", m.N, ErrInvalid)
	}
	_, err = s.Commit(ctx, coord.Set(lane, layout.Marker{N: n, Void: true}.Value(), node.Fence))
	return Outcome{}, err
}

// readMarker reads a lane's node; [ErrTokenExpired] if it is not there.
func readMarker(ctx context.Context, s coord.Session, lane string) (coord.Node, layout.Marker, error) {
	node, err := s.Get(ctx, lane)
	if errors.Is(err, coord.ErrNotExist) {
		return node, layout.Marker{}, fmt.Errorf("nothing is known of producer %s any more: %w", path.Base(lane), ErrTokenExpired)
	}
	if err != nil {
		return node, layout.Marker{}, err
	}
	m, ok := layout.ParseMarker(node.Value)
	if !ok {
		return node, m, fmt.Errorf("%s holds %.40q, which is not a marker of this version: %w", lane, node.Value, ErrTokenExpired)
	}
	return node, m, nil
}

// Forget removes what is kept for tokens that nobody will ask about again. One
// that is forgotten is [ErrTokenExpired]. Forget none whose put may still be under
// way.
func Forget(ctx context.Context, c coord.Coordinator, tokens ...Token) error {
	for _, t := range tokens {
		if err := forget(ctx, c, t); err != nil {
			return fmt.Errorf("forget %s: %w", t, err)
		}
	}
	return nil
}

func forget(ctx context.Context, c coord.Coordinator, t Token) error {
	name, n, err := t.parse()
	if err != nil {
		return err
	}
	l := lane{name: name}
	for backoff := new(retry.Backoff); ; {
		s, err := c.Session(ctx)
		if err == nil {
			var node coord.Node
			var m layout.Marker
			node, m, err = readMarker(ctx, s, l.path())
			switch {
			case errors.Is(err, ErrTokenExpired), err == nil && m.N > n:
				return nil
			case err == nil && m.N+1 < n: // somebody else's, who is at work in it
				return fmt.Errorf("its producer has only come to number %d: %w", m.N, ErrInvalid)
			case err == nil:
				_, err = s.Commit(ctx, coord.Delete(l.path(), node.Fence))
			}
		}
		again := errors.Is(err, coord.ErrUnknown) || errors.Is(err, coord.ErrBusy) || retry.IsRefused(err) || retry.NothingSent(err)
		if !again {
			return err
		}
		if werr := backoff.Wait(ctx, nil, err); werr != nil {
			return retry.WithDeadline(ctx, retry.NotApplied(ctx, err))
		}
	}
}
