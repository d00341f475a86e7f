package zkq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Update gives the entry another value, for whoever works on it next: a checkpoint. It is
// held as before, in its place and with its time to live and key, and neither counts as a
// delivery nor towards [MaxDeliveries]. Errors are those of [Held.Consume]: after
// [ErrUnknown] the entry has the one value or the other, and every finish goes on as if the
// answer had come; [ErrTooLarge] changes nothing. Value is the new one when it returned nil.
func (h *Held) Update(ctx context.Context, value []byte) error {
	fail := func(err error) error { return fmt.Errorf("update %s: %w", h.entry, err) }
	switch {
	case h.queue == nil:
		return fmt.Errorf("update: this Held was not made by a take: %w", ErrNotHeld)
	case ctx == nil:
		return fail(fmt.Errorf("nil context: %w", ErrInvalid))
	case len(value) > MaxValue:
		return fail(&coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: MaxValue})
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	value = bytes.Clone(value)
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	switch h.state.Load() {
	case stateDone:
		return fail(ErrAlreadyDone)
	case stateLost:
		return fail(ErrLockLost)
	}
	s := h.lock.Session()
	for backoff := h.queue.backoff(actUpdate); ; {
		err := h.write(ctx, s, value)
		switch {
		case err == nil:
			backoff.Succeeded()
			h.Value = value
			return nil
		case errors.Is(err, errUnavailable), retry.NothingSent(err) && h.updating == 0:
			if h.unknown != "" { // a finish of this handle may have been applied
				return fail(fmt.Errorf("%w: %w", ErrUnknown, ErrLockLost))
			}
			h.end(stateLost, false)
			return fail(ErrLockLost)
		case h.updating == 0 && !errors.Is(err, coord.ErrBusy) && !retry.IsRefused(err), errors.Is(err, ErrTooLarge):
			return fail(err)
		}
		if werr := backoff.Wait(ctx, s.Done(), err); werr != nil || errors.Is(err, coord.ErrClosed) {
			if h.updating > 0 && !errors.Is(err, ErrUnknown) {
				err = fmt.Errorf("%w: %w", ErrUnknown, err)
			}
			if werr != nil {
				err = fmt.Errorf("%w: %w", err, werr)
			}
			return fail(err)
		}
	}
}

// write is one attempt at an update: errUnavailable says that the entry is not held any more. The
// update is counted beside the entry in its commit: that tells, where the answer was lost,
// whether it was this one that moved the fence.
func (h *Held) write(ctx context.Context, s coord.Session, value []byte) error {
	n, err := h.read(ctx, s)
	switch {
	case errors.Is(err, coord.ErrNotExist):
		return errUnavailable
	case err != nil:
		return err
	case n.Fence != h.fence && !h.updated(n):
		return errUnavailable
	case n.Fence != h.fence:
		h.adopt(n.Fence)
		if bytes.Equal(layout.Body(n.Value), value) {
			return nil
		}
	}
	a := h.past
	a.Updates, a.Forgiven = a.Updates+1, a.Forgiven+1
	sealed := layout.Reseal(n.Value, value)
	if err := h.queue.claimable(s, []coord.Op{coord.CreateSequential(path.Join(h.queue.entries, "entry-"), sealed)}); err != nil {
		return err
	}
	rs, err := s.Commit(ctx, coord.Set(h.entry, sealed, h.fence), coord.Check(h.lock.Path(), h.lock.GiveBack().Fence), a.write())
	h.known = false
	switch {
	case err == nil:
		h.updating = a.Updates
		h.adopt(rs[0].Fence)
		return nil
	case errors.Is(err, coord.ErrUnknown):
		h.updating = a.Updates
	case retry.IsRefused(err) && retry.RefusedOp(err) < 2 && h.updating == 0:
		return errUnavailable
	}
	return err
}

// read reads what became of the entry before, and then the entry. An update that got no
// answer may be applied between the two, once: then both are read again.
func (h *Held) read(ctx context.Context, s coord.Session) (n coord.Node, err error) {
	for again := false; ; again = true {
		if !h.known {
			if err := h.recall(ctx); err != nil {
				return n, err
			}
		}
		n, err = s.Get(ctx, h.entry)
		if err != nil || again || h.updating == 0 || n.Fence == h.fence || h.updated(n) {
			return n, err
		}
		h.known = false
	}
}

// updated says whether the entry's fence was moved by the update that got no answer, and
// by nothing else. What was counted was read before the entry: of two changes in between
// the second would show.
func (h *Held) updated(n coord.Node) bool {
	return h.updating > 0 && h.past.Updates == h.updating && n.Changes == h.changes+h.bumps+h.updates+1
}

// adopt goes on with the fence that an update left.
func (h *Held) adopt(f coord.Fence) {
	atomic.StoreInt64((*int64)(&h.fence), int64(f))
	h.updates++
	h.updating, h.known = 0, false
}

// at is the entry's fence.
func (h *Held) at() coord.Fence { return coord.Fence(atomic.LoadInt64((*int64)(&h.fence))) }

// moved says whether a finish was refused because an update without an answer was applied,
// and is to be made again.
func (h *Held) moved(ctx context.Context) (bool, error) {
	if h.updating == 0 {
		return false, nil
	}
	if err := h.recall(ctx); err != nil {
		return false, err
	}
	n, err := h.lock.Session().Get(ctx, h.entry)
	if err != nil || !h.updated(n) {
		if errors.Is(err, coord.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	h.adopt(n.Fence)
	return true, nil
}

// deliveries is how often the entry was handed out, this time included.
func (h *Held) deliveries() int { return int(h.changes-h.past.Updates+h.updates) + 1 }
