package zkq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Update replaces the entry's value, for instance with a checkpoint from which the next worker
// goes on if this one fails. The entry stays held, and keeps its position, time to live and
// unique key. An update does not count as a delivery, nor towards [MaxDeliveries]. After nil,
// h.Value is the new value.
//
// Errors are those of [Held.Consume]. After [ErrUnknown] the entry has the old value or the new
// one, and it can be updated and finished as before. After [ErrTooLarge] nothing was changed.
func (h *Held) Update(ctx context.Context, value []byte) error {
	if err := h.update(ctx, value); err != nil {
		if h.claimer == nil {
			return fmt.Errorf("update: %w", err)
		}
		return fmt.Errorf("update %s: %w", h.entry, err)
	}
	return nil
}

// update makes attempts at the update until the service answers one, or ctx or the session ends.
// The steps are those of a finish (nextStep), with two differences. An attempt that is refused
// after one without an answer is made again: it begins by reading the entry, which shows
// whether the earlier one was applied. And after a success the entry is still held, at the
// fence that the update left.
func (h *Held) update(ctx context.Context, value []byte) error {
	if err := h.lockUpdate(ctx, value); err != nil {
		return err
	}
	defer func() { <-h.sem }()
	switch h.state.Load() {
	case stateDone:
		return ErrAlreadyDone
	case stateLost:
		return ErrLockLost
	}
	value = bytes.Clone(value)
	s := h.lock.Session()
	backoff := h.claimer.Backoff(actUpdate)
	err, interrupted := backoff.Do(ctx, s.Done(), func() (retry.Decision, error) {
		return h.attemptUpdate(ctx, s, value)
	})
	switch {
	case interrupted != nil:
		return fmt.Errorf("%w: %w", h.withUpdateDoubt(err), interrupted)
	case err == nil:
		backoff.Succeeded()
	}
	return err
}

// attemptUpdate is one attempt at an update. When it decides to stop, its error is the result
// of the update.
func (h *Held) attemptUpdate(ctx context.Context, s coord.Session, value []byte) (retry.Decision, error) {
	err := h.write(ctx, s, value)
	switch nextStep[outcomeOf(err)][h.updateDoubt()] {
	case stepSucceed:
		h.Value = value
		return retry.Stop, nil
	case stepLose:
		if h.unanswered.exists() { // a finish of this Held may have been applied
			return retry.Stop, fmt.Errorf("%w: %w", ErrUnknown, ErrLockLost)
		}
		h.end(stateLost, false)
		return retry.Stop, ErrLockLost
	case stepKeep:
		return retry.Stop, err
	}
	if errors.Is(err, coord.ErrClosed) {
		return retry.Stop, h.withUpdateDoubt(err)
	}
	return retry.Later, err // the next attempt begins by reading the entry
}

// withUpdateDoubt adds [ErrUnknown] to err if an update has no answer.
func (h *Held) withUpdateDoubt(err error) error {
	if h.updateDoubt() != doubtNone && !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// lockUpdate checks whether an update of this Held with this value is possible, and takes h.sem
// for it. After an error the caller does not have h.sem.
func (h *Held) lockUpdate(ctx context.Context, value []byte) error {
	switch {
	case h.claimer == nil:
		return fmt.Errorf("this Held was not made by a take: %w", ErrNotHeld)
	case ctx == nil:
		return fmt.Errorf("nil context: %w", ErrInvalid)
	case len(value) > MaxValue:
		return &coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: MaxValue}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case h.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// updateDoubt returns doubtThis if an earlier update got no answer, otherwise doubtNone. A finish
// without an answer matters to an update only when the lock is lost.
func (h *Held) updateDoubt() doubt {
	if h.updating != 0 {
		return doubtThis
	}
	return doubtNone
}

// write is one attempt at an update. errUnavailable means that the entry is not held any more.
// The commit also counts the update in the entry's history. If the answer is lost, that count
// shows whether this update has moved the entry's fence, or another process.
func (h *Held) write(ctx context.Context, s coord.Session, value []byte) error {
	n, err := h.readHistoryAndEntry(ctx, s)
	switch {
	case errors.Is(err, coord.ErrNotExist):
		return errUnavailable
	case err != nil:
		return err
	case n.Fence != h.fence && !h.isMovedByUpdate(n):
		return errUnavailable
	case n.Fence != h.fence:
		h.adoptFence(n.Fence)
		if bytes.Equal(layout.Body(n.Value), value) {
			return nil
		}
	}
	// An update adds a change to the entry, which must not count as a delivery.
	a := h.past
	a.Updates, a.Forgiven = a.Updates+1, a.Forgiven+1
	// The new value must fit a claim: otherwise no process could take the entry again.
	sealed := layout.Reseal(n.Value, value)
	if err := h.claimer.puts.checkClaimable(s, []coord.Op{coord.CreateSequential(path.Join(h.claimer.Entries, "entry-"), sealed)}); err != nil {
		return err
	}
	rs, err := s.Commit(ctx, coord.Set(h.entry, sealed, h.fence), coord.Check(h.lock.Path(), h.lock.ReleaseOp().Fence), a.writeOp())
	h.isHistoryKnown = false
	switch {
	case err == nil:
		h.updating = a.Updates
		h.adoptFence(rs[0].Fence)
	case errors.Is(err, coord.ErrUnknown):
		h.updating = a.Updates
	}
	return err
}

// readHistoryAndEntry reads the entry's history, unless it is known, and then the entry. An
// earlier update without an answer may be applied between the two reads, but only once. So if
// the two do not fit, both are read once more.
func (h *Held) readHistoryAndEntry(ctx context.Context, s coord.Session) (n coord.Node, err error) {
	for again := false; ; again = true {
		if !h.isHistoryKnown {
			if err := h.readHistory(ctx); err != nil {
				return n, err
			}
		}
		n, err = s.Get(ctx, h.entry)
		if err != nil || again || h.updating == 0 || n.Fence == h.fence || h.isMovedByUpdate(n) {
			return n, err
		}
		h.isHistoryKnown = false
	}
}
